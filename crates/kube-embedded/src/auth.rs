//! Who calls, and what they may do.

use std::sync::Arc;

use subtle::ConstantTimeEq as _;

/// What a user may do. An empty list matches nothing, `"*"` everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verbs: Vec<String>,
    /// API groups; `""` is the core group.
    pub groups: Vec<String>,
    /// Plural resources; a subresource as `pods/status`.
    pub resources: Vec<String>,
    /// Namespaces; empty: all, and cluster-scoped resources.
    pub namespaces: Vec<String>,
}

impl Rule {
    /// Everything but writes.
    #[must_use]
    pub fn read_only() -> Self {
        let all = || vec!["*".to_owned()];
        Self {
            verbs: ["get", "list", "watch"].map(str::to_owned).to_vec(),
            groups: all(),
            resources: all(),
            namespaces: Vec::new(),
        }
    }

    fn allows(&self, action: &Action<'_>) -> bool {
        let any = |list: &[String], wanted: &str| list.iter().any(|one| one == "*" || one == wanted);
        let resource = if action.subresource.is_empty() {
            action.resource.to_owned()
        } else {
            format!("{}/{}", action.resource, action.subresource)
        };
        any(&self.verbs, action.verb)
            && any(&self.groups, action.group)
            && any(&self.resources, &resource)
            && (self.namespaces.is_empty() || any(&self.namespaces, action.namespace))
    }
}

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    /// The name, as forbidden answers and `kubectl auth whoami` show it.
    pub name: String,
    /// The groups. Members of `system:masters` may do everything.
    pub groups: Vec<String>,
    /// What the user may do beside that.
    pub rules: Vec<Rule>,
}

impl User {
    /// A user who may do everything.
    #[must_use]
    pub fn admin(name: &str) -> Self {
        Self { name: name.to_owned(), groups: vec![MASTERS.to_owned(), AUTHENTICATED.to_owned()], rules: Vec::new() }
    }

    /// A user who may do what `rules` say.
    #[must_use]
    pub fn with_rules(name: &str, rules: Vec<Rule>) -> Self {
        Self { name: name.to_owned(), groups: vec![AUTHENTICATED.to_owned()], rules }
    }

    pub(crate) fn anonymous() -> Self {
        Self {
            name: "system:anonymous".to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
            rules: Vec::new(),
        }
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        self.name == "system:anonymous"
    }

    pub(crate) fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == MASTERS)
    }

    pub(crate) fn may(&self, action: &Action<'_>) -> bool {
        self.is_master() || self.rules.iter().any(|rule| rule.allows(action))
    }
}

const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";

/// What a request does, as authorisation sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Action<'a> {
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
}

/// Knows bearer tokens.
pub trait Authenticator: Send + Sync + std::fmt::Debug {
    /// Whose token this is; `None` for one that is unknown, expired or malformed.
    fn authenticate(&self, token: &str) -> Option<User>;
}

/// A fixed list of tokens.
#[derive(Default, Clone)]
pub struct Tokens {
    tokens: Vec<(String, User)>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.tokens.iter().map(|(_, user)| &user.name)).finish()
    }
}

impl Tokens {
    /// No tokens: nobody gets in.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a token.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>, user: User) -> Self {
        self.tokens.push((token.into(), user));
        self
    }
}

impl Authenticator for Tokens {
    fn authenticate(&self, token: &str) -> Option<User> {
        // All are compared, each in constant time: the duration reveals nothing about a token.
        let mut found = None;
        for (known, user) in &self.tokens {
            if !known.is_empty() && bool::from(known.as_bytes().ct_eq(token.as_bytes())) {
                found = Some(user);
            }
        }
        found.cloned()
    }
}

impl<A: Authenticator + ?Sized> Authenticator for Arc<A> {
    fn authenticate(&self, token: &str) -> Option<User> {
        (**self).authenticate(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_limit_verbs_and_namespaces() {
        let rule = Rule {
            verbs: vec!["get".into()],
            groups: vec![String::new()],
            resources: vec!["pods".into(), "pods/status".into()],
            namespaces: vec!["berth".into()],
        };
        let user = User::with_rules("node", vec![rule]);
        let action =
            |verb, subresource, namespace| Action { verb, group: "", resource: "pods", subresource, namespace };
        assert!(user.may(&action("get", "", "berth")) && user.may(&action("get", "status", "berth")));
        assert!(!user.may(&action("get", "log", "berth")));
        assert!(!user.may(&action("list", "", "berth")) && !user.may(&action("get", "", "other")));
    }
}
