//! A workspace as it is stored, and as its users see it.

use berth_api_types::public::{self, Phase, Receipt};
use berth_ids::{OrganizationId, UserId, WorkspaceId};
use chrono::{DateTime, Utc};

use super::authorize::WorkspaceScope;
use super::instance::{Belongings, Instance};

/// Longest context URL, the same as in scm.
pub(crate) const MAX_URL_BYTES: usize = 4096;
/// Longest inactivity timeout that can be set: a week.
pub(crate) const MAX_INACTIVITY_SECONDS: u32 = 7 * 24 * 3600;

/// A workspace and its newest run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Unique among its owner's.
    pub name: String,
    /// Whose it is.
    pub owner_id: UserId,
    /// Who pays.
    pub organization_id: OrganizationId,
    /// As given.
    pub context_url: String,
    /// Web URL of the repository.
    pub repository: String,
    /// `host/owner/name`.
    pub repository_key: String,
    /// Branch or tag.
    pub reference: Option<String>,
    /// Commit it was made at.
    pub commit: Option<String>,
    /// Folder inside.
    pub checkout_path: String,
    /// Workspace class.
    pub class: String,
    /// Image asked for.
    pub image: Option<String>,
    /// Seconds without activity until it stops; `None`: the default; 0: never.
    pub inactivity_seconds: Option<u32>,
    /// Counts changes of its settings.
    pub revision: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// It is being deleted.
    pub deleting: bool,
    /// Its newest run.
    pub instance: Option<Instance>,
}

impl Workspace {
    /// Its phase; one that never started is Stopped.
    #[must_use]
    pub(crate) fn phase(&self) -> Phase {
        self.instance.as_ref().map_or(Phase::Stopped, |instance| instance.phase)
    }

    /// Its newest run, unless that is over.
    #[must_use]
    pub(crate) fn live(&self) -> Option<&Instance> {
        self.instance.as_ref().filter(|instance| !instance.is_over())
    }

    /// The facts that rights on it are decided from.
    #[must_use]
    pub(crate) const fn scope(&self) -> WorkspaceScope {
        WorkspaceScope { owner_id: self.owner_id, organization_id: self.organization_id }
    }

    /// What the events of its instances say about it.
    #[must_use]
    pub(crate) fn belongings(&self) -> Belongings {
        Belongings {
            workspace_name: self.name.clone(),
            owner_id: self.owner_id,
            organization_id: self.organization_id,
            repository: self.repository_key.clone(),
            class: self.class.clone(),
            deleted: false,
        }
    }

    /// The receipt of its newest start.
    #[must_use]
    pub(crate) fn receipt(&self) -> Receipt {
        let Some(instance) = &self.instance else { return Receipt::default() };
        let mut steps = instance.request_steps.clone();
        steps.extend(instance.steps.iter().cloned());
        Receipt { steps, total_us: instance.total_us.and_then(|us| u64::try_from(us).ok()) }
    }

    /// As its users see it.
    #[must_use]
    pub(crate) fn public(&self) -> public::Workspace {
        let receipt = self.receipt();
        let instance = self.instance.as_ref();
        let reason = match instance {
            _ if self.deleting => "it is being deleted".to_owned(),
            Some(instance) => instance.reason.clone(),
            None => String::new(),
        };
        public::Workspace {
            id: self.id,
            name: self.name.clone(),
            phase: self.phase(),
            reason,
            repository: self.repository.clone(),
            reference: self.reference.clone(),
            commit: self.commit.clone(),
            context_url: self.context_url.clone(),
            checkout_path: self.checkout_path.clone(),
            class: self.class.clone(),
            image: self.image.clone(),
            image_digest: instance.and_then(|instance| instance.image_digest.clone()),
            resources: instance.and_then(|instance| instance.resources.clone()),
            owner_id: self.owner_id,
            organization_id: self.organization_id,
            instance_id: instance.map(|instance| instance.id),
            created_at: self.created_at,
            started_at: instance.and_then(|instance| instance.started_at),
            stopped_at: instance.and_then(|instance| instance.stopped_at),
            timeout_warning: instance.and_then(|instance| instance.timeout_warning.clone()),
            receipt,
        }
    }

    /// One for tests.
    #[cfg(test)]
    pub(crate) fn example(owner_id: UserId, organization_id: OrganizationId) -> Self {
        Self {
            id: WorkspaceId::new(&berth_clock::SystemClock, &berth_clock::SystemEntropy),
            name: "hello".into(),
            owner_id,
            organization_id,
            context_url: "https://git.example.com/a/hello".into(),
            repository: "https://git.example.com/a/hello".into(),
            repository_key: "git.example.com/a/hello".into(),
            reference: None,
            commit: None,
            checkout_path: "/workspace/hello".into(),
            class: "small".into(),
            image: None,
            inactivity_seconds: None,
            revision: 1,
            created_at: DateTime::UNIX_EPOCH,
            deleting: false,
            instance: None,
        }
    }
}

/// Why a setting is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidSetting {
    /// The URL is too long or has characters that no URL has.
    #[error("the context URL is empty, longer than {MAX_URL_BYTES} bytes, or holds control characters")]
    Url,
    /// Too long a time.
    #[error("inactivity_seconds is at most {MAX_INACTIVITY_SECONDS} (a week), or 0 for never; the least is 60")]
    Inactivity,
    /// Not an image reference.
    #[error("the image is not a reference such as registry.example.com/team/image:tag or one with @sha256:...")]
    Image,
}

/// Checks that the URL can be a URL at all; what it means is for scm to say.
///
/// # Errors
/// [`InvalidSetting::Url`].
pub(crate) fn check_url(url: &str) -> Result<(), InvalidSetting> {
    let fits = !url.trim().is_empty() && url.len() <= MAX_URL_BYTES && !url.contains(char::is_control);
    if fits { Ok(()) } else { Err(InvalidSetting::Url) }
}

/// Checks an inactivity timeout, in seconds.
///
/// # Errors
/// [`InvalidSetting::Inactivity`].
pub(crate) const fn check_inactivity(seconds: Option<u32>) -> Result<(), InvalidSetting> {
    match seconds {
        None | Some(0 | 60..=MAX_INACTIVITY_SECONDS) => Ok(()),
        Some(_) => Err(InvalidSetting::Inactivity),
    }
}

/// Checks that the image reference has valid characters and does not look like an option.
///
/// # Errors
/// [`InvalidSetting::Image`].
pub(crate) fn check_image(image: Option<&str>) -> Result<(), InvalidSetting> {
    let Some(image) = image else { return Ok(()) };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | ':' | '@' | '[' | ']');
    let fits = image.len() <= 512
        && image.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
        && image.chars().all(allowed)
        && !image.contains("//")
        && !image.contains("..");
    if fits { Ok(()) } else { Err(InvalidSetting::Image) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked() {
        assert!(check_url("https://a/b").is_ok());
        assert!(check_url("https://dev.azure.com/o/My Project/_git/r").is_ok());
        for bad in ["", " ", "https://a\n"] {
            assert!(check_url(bad).is_err(), "{bad:?}");
        }
        assert!(check_inactivity(Some(0)).is_ok() && check_inactivity(Some(3600)).is_ok());
        assert!(check_inactivity(Some(5)).is_err() && check_inactivity(Some(u32::MAX)).is_err());
        assert!(check_image(Some("registry.example.com:5000/a/b:1@sha256:00")).is_ok());
        for bad in ["", "--x", "a b", "a;b", "../x", "https://x"] {
            assert!(check_image(Some(bad)).is_err(), "{bad}");
        }
    }
}
