//! A right as a value.

use std::marker::PhantomData;
use std::sync::Arc;

use berth_http::Problem;

use crate::Principal;

/// Something that can be done to a resource; the name goes into the audit log.
pub trait Action: Send + Sync + 'static {
    /// For example `workspace.stop`.
    const NAME: &'static str;
}

/// What a policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// They may.
    Allow,
    /// They may not, and may not learn that it exists.
    Hidden,
    /// They may not, but they know of it.
    Forbidden,
}

/// The rule for one action on one kind of resource. Pure: everything it needs is in the resource and the principal.
pub trait Policy<A: Action> {
    /// What the resource is called in messages, for example `workspace`.
    const NOUN: &'static str;

    /// May they?
    fn decide(&self, principal: &Principal) -> Decision;
}

/// They may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// To be answered as if the resource did not exist.
    #[error("there is no such {noun}")]
    Hidden {
        /// Kind of resource.
        noun: &'static str,
    },
    /// To be answered as forbidden.
    #[error("your role does not allow {action} on this {noun}; ask {}", who_may(noun))]
    Forbidden {
        /// Kind of resource.
        noun: &'static str,
        /// Name of the action.
        action: &'static str,
    },
}

fn who_may(noun: &str) -> &'static str {
    if noun == "installation" { "an administrator" } else { "an owner of its organization" }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Hidden { .. } => Self::not_found(denied.to_string()),
            Denied::Forbidden { .. } => Self::forbidden(denied.to_string()),
        }
    }
}

/// Proof that `principal` may do `A` to this resource. Only [`Authorized::check`] makes one.
#[derive(Debug)]
pub struct Authorized<T, A> {
    resource: T,
    principal: Arc<Principal>,
    action: PhantomData<fn() -> A>,
}

impl<T: Clone, A> Clone for Authorized<T, A> {
    fn clone(&self) -> Self {
        Self { resource: self.resource.clone(), principal: Arc::clone(&self.principal), action: PhantomData }
    }
}

impl<T, A> Authorized<T, A>
where
    A: Action,
    T: Policy<A>,
{
    /// Asks the policy.
    ///
    /// # Errors
    /// The policy says no.
    pub fn check(principal: &Arc<Principal>, resource: T) -> Result<Self, Denied> {
        match resource.decide(principal) {
            Decision::Allow => Ok(Self { resource, principal: Arc::clone(principal), action: PhantomData }),
            Decision::Hidden => Err(Denied::Hidden { noun: T::NOUN }),
            Decision::Forbidden => Err(Denied::Forbidden { noun: T::NOUN, action: A::NAME }),
        }
    }
}

impl<T, A: Action> Authorized<T, A> {
    /// What the action is called.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        A::NAME
    }

    /// Who may.
    #[must_use]
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }

    /// The resource, out of the proof.
    #[must_use]
    pub fn into_resource(self) -> T {
        self.resource
    }
}

impl<T, A> std::ops::Deref for Authorized<T, A> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.resource
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Credential;
    use berth_clock::{SystemClock, SystemEntropy};
    use berth_ids::UserId;

    struct Note {
        author: UserId,
        public: bool,
    }
    struct Erase;
    impl Action for Erase {
        const NAME: &'static str = "note.erase";
    }
    impl Policy<Erase> for Note {
        const NOUN: &'static str = "note";
        fn decide(&self, principal: &Principal) -> Decision {
            match (self.author == principal.user_id, self.public) {
                (true, _) => Decision::Allow,
                (false, true) => Decision::Forbidden,
                (false, false) => Decision::Hidden,
            }
        }
    }

    fn somebody() -> Arc<Principal> {
        Arc::new(Principal {
            user_id: UserId::new(&SystemClock, &SystemEntropy),
            name: "Ada".into(),
            email: "ada@example.com".into(),
            admin: false,
            organizations: Vec::new(),
            credential: Credential::Local,
        })
    }

    #[test]
    fn the_proof_is_had_from_the_policy_only() {
        let ada = somebody();
        let own = Authorized::<Note, Erase>::check(&ada, Note { author: ada.user_id, public: false }).unwrap();
        assert_eq!(own.action(), "note.erase");
        let other = somebody().user_id;
        let denied = |public| Authorized::<Note, Erase>::check(&ada, Note { author: other, public }).err().unwrap();
        assert_eq!(denied(false), Denied::Hidden { noun: "note" });
        assert_eq!(denied(true), Denied::Forbidden { noun: "note", action: "note.erase" });
    }
}
