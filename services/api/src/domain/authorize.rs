//! Who may do what: the complete authorisation policy of this service.

use berth_authz::{Action, Decision, OrganizationRole, Policy, Principal};
use berth_ids::{OrganizationId, UserId};

use super::workspace::Workspace;

/// An action on a workspace, and who else than its owner and administrators may do it.
pub(crate) trait WorkspaceAct: Action {
    /// Owners of the organization that pays may do it too: they see what runs at their expense, and can end it. They cannot get inside.
    const ORGANIZATION_OWNER: bool;
    /// It costs money, so the workspace's owner must still belong to the organization that pays.
    const COSTS: bool = false;
}

macro_rules! workspace_actions {
    ($($(#[$doc:meta])* $name:ident = $text:literal, organization_owner: $owner:literal, costs: $costs:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name;
        impl Action for $name {
            const NAME: &'static str = $text;
        }
        impl WorkspaceAct for $name {
            const ORGANIZATION_OWNER: bool = $owner;
            const COSTS: bool = $costs;
        }
    )*};
}

workspace_actions! {
    /// See a workspace.
    ReadWorkspace = "workspace.read", organization_owner: true, costs: false;
    /// Begin a run of it.
    StartWorkspace = "workspace.start", organization_owner: false, costs: true;
    /// End its run.
    StopWorkspace = "workspace.stop", organization_owner: true, costs: false;
    /// Change its settings.
    UpdateWorkspace = "workspace.update", organization_owner: false, costs: false;
    /// Remove it with its disk.
    DeleteWorkspace = "workspace.delete", organization_owner: true, costs: false;
    /// Run commands, terminals and copies in it.
    ExecInWorkspace = "workspace.exec", organization_owner: false, costs: false;
    /// Reach its ports.
    ConnectToWorkspace = "workspace.connect", organization_owner: false, costs: false;
}

/// The facts that decide a right on a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorkspaceScope {
    /// Whose it is.
    pub owner_id: UserId,
    /// Who pays.
    pub organization_id: OrganizationId,
}

impl<A: WorkspaceAct> Policy<A> for WorkspaceScope {
    const NOUN: &'static str = "workspace";

    fn decide(&self, principal: &Principal) -> Decision {
        let owner = self.owner_id == principal.user_id;
        let role = principal.role_in(self.organization_id);
        if principal.admin {
            return Decision::Allow;
        }
        match (owner, role) {
            (true, None) if A::COSTS => Decision::Forbidden,
            (true, _) => Decision::Allow,
            (false, Some(OrganizationRole::Owner)) if A::ORGANIZATION_OWNER => Decision::Allow,
            (false, Some(OrganizationRole::Owner)) => Decision::Forbidden,
            (false, Some(OrganizationRole::Member) | None) => Decision::Hidden,
        }
    }
}

impl<A: WorkspaceAct> Policy<A> for Workspace {
    const NOUN: &'static str = "workspace";

    fn decide(&self, principal: &Principal) -> Decision {
        Policy::<A>::decide(&self.scope(), principal)
    }
}

/// The facts that decide a right on an organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrganizationScope {
    /// Which one.
    pub id: OrganizationId,
    /// Whose personal one it is.
    pub personal_of: Option<UserId>,
}

/// An action on an organization.
pub(crate) trait OrganizationAct: Action {
    /// The least role that may.
    const ROLE: OrganizationRole;
    /// Also on a personal organization, which has exactly one member.
    const PERSONAL: bool;
    /// Administrators of the installation may too.
    const ADMIN: bool = true;
}

macro_rules! organization_actions {
    ($($(#[$doc:meta])* $name:ident = $text:literal, role: $role:ident, personal: $personal:literal, admin: $admin:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name;
        impl Action for $name {
            const NAME: &'static str = $text;
        }
        impl OrganizationAct for $name {
            const ROLE: OrganizationRole = OrganizationRole::$role;
            const PERSONAL: bool = $personal;
            const ADMIN: bool = $admin;
        }
    )*};
}

organization_actions! {
    /// See it and its members.
    ReadOrganization = "organization.read", role: Member, personal: true, admin: true;
    /// Change its settings.
    UpdateOrganization = "organization.update", role: Owner, personal: true, admin: true;
    /// Add, change and remove members.
    ManageMembers = "organization.members", role: Owner, personal: false, admin: true;
    /// Leave it.
    LeaveOrganization = "organization.leave", role: Member, personal: false, admin: false;
    /// See everybody's workspaces in it.
    ListOrganizationWorkspaces = "organization.workspaces", role: Owner, personal: true, admin: true;
    /// Make workspaces that it pays for.
    SpendInOrganization = "workspace.create", role: Member, personal: true, admin: false;
}

impl<A: OrganizationAct> Policy<A> for OrganizationScope {
    const NOUN: &'static str = "organization";

    fn decide(&self, principal: &Principal) -> Decision {
        let role = principal.role_in(self.id);
        let visible = role.is_some() || principal.admin;
        let enough = role.is_some_and(|role| role >= A::ROLE) || (principal.admin && A::ADMIN);
        let possible = A::PERSONAL || self.personal_of.is_none();
        match (visible, enough && possible) {
            (false, _) => Decision::Hidden,
            (true, true) => Decision::Allow,
            (true, false) => Decision::Forbidden,
        }
    }
}

/// The installation as a whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Installation;

/// An action of administrators.
pub(crate) trait InstallationAct: Action {}

macro_rules! installation_actions {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name;
        impl Action for $name {
            const NAME: &'static str = $text;
        }
        impl InstallationAct for $name {}
    )*};
}

installation_actions! {
    /// See every account.
    ListUsers = "user.list";
    /// Make an account.
    CreateUser = "user.create";
    /// Read the audit log.
    ReadAudit = "audit.read";
    /// See everybody's workspaces.
    ListAllWorkspaces = "workspace.list_all";
}

impl<A: InstallationAct> Policy<A> for Installation {
    const NOUN: &'static str = "installation";

    fn decide(&self, principal: &Principal) -> Decision {
        if principal.admin { Decision::Allow } else { Decision::Forbidden }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_authz::{Credential, Membership};
    use berth_clock::{SystemClock, SystemEntropy};

    fn principal(admin: bool, organizations: Vec<Membership>) -> Principal {
        let user_id = UserId::new(&SystemClock, &SystemEntropy);
        Principal {
            user_id,
            name: "Ada".into(),
            email: "ada@example.com".into(),
            admin,
            organizations,
            credential: Credential::Local,
        }
    }

    fn decisions(workspace: &Workspace, who: &Principal) -> [Decision; 7] {
        [
            Policy::<ReadWorkspace>::decide(workspace, who),
            Policy::<StartWorkspace>::decide(workspace, who),
            Policy::<StopWorkspace>::decide(workspace, who),
            Policy::<UpdateWorkspace>::decide(workspace, who),
            Policy::<DeleteWorkspace>::decide(workspace, who),
            Policy::<ExecInWorkspace>::decide(workspace, who),
            Policy::<ConnectToWorkspace>::decide(workspace, who),
        ]
    }

    #[test]
    fn rights_on_a_workspace() {
        use Decision::{Allow, Forbidden, Hidden};
        let organization = OrganizationId::new(&SystemClock, &SystemEntropy);
        let at = |role| vec![Membership { id: organization, role, personal: false }];
        let owner = principal(false, at(OrganizationRole::Member));
        let workspace = Workspace::example(owner.user_id, organization);
        assert_eq!(decisions(&workspace, &owner), [Allow; 7]);
        assert_eq!(decisions(&workspace, &principal(true, vec![])), [Allow; 7]);
        assert_eq!(decisions(&workspace, &principal(false, vec![])), [Hidden; 7]);
        assert_eq!(decisions(&workspace, &principal(false, at(OrganizationRole::Member))), [Hidden; 7]);
        let boss = principal(false, at(OrganizationRole::Owner));
        assert_eq!(decisions(&workspace, &boss), [Allow, Forbidden, Allow, Forbidden, Allow, Forbidden, Forbidden]);
        let mut gone = owner;
        gone.organizations.clear();
        assert_eq!(decisions(&workspace, &gone), [Allow, Forbidden, Allow, Allow, Allow, Allow, Allow]);
    }

    #[test]
    fn rights_on_an_organization() {
        use Decision::{Allow, Forbidden, Hidden};
        let id = OrganizationId::new(&SystemClock, &SystemEntropy);
        let shared = OrganizationScope { id, personal_of: None };
        let at = |role| principal(false, vec![Membership { id, role, personal: false }]);
        let (owner, member) = (at(OrganizationRole::Owner), at(OrganizationRole::Member));
        let (stranger, admin) = (principal(false, vec![]), principal(true, vec![]));
        let manage = |who: &Principal| Policy::<ManageMembers>::decide(&shared, who);
        assert_eq!(
            [manage(&owner), manage(&member), manage(&stranger), manage(&admin)],
            [Allow, Forbidden, Hidden, Allow]
        );
        let spend = |who: &Principal| Policy::<SpendInOrganization>::decide(&shared, who);
        assert_eq!([spend(&owner), spend(&member), spend(&stranger), spend(&admin)], [Allow, Allow, Hidden, Forbidden]);
        let own = OrganizationScope { id, personal_of: Some(owner.user_id) };
        assert_eq!(Policy::<ManageMembers>::decide(&own, &owner), Forbidden);
        assert_eq!(Policy::<ReadOrganization>::decide(&own, &owner), Allow);
    }
}
