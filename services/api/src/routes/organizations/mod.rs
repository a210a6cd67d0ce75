//! Organizations.

pub(super) mod create;
pub(super) mod list;
pub(super) mod show;
pub(super) mod update;

use std::sync::Arc;

use berth_api_types::public::AuditResult;
use berth_authz::{Authorized, Denied, Principal};
use berth_http::Problem;
use berth_ids::OrganizationId;

use crate::domain::authorize::{OrganizationAct, OrganizationScope};
use crate::http::caller::Caller;
use crate::state::Api;
use crate::store;
use crate::store::audit::Record;

/// The right to do `A` to the organization in the path. A refusal to somebody who may see it goes into the audit log.
pub(in crate::routes) async fn load<A>(
    api: &Api,
    principal: &Arc<Principal>,
    caller: &Caller,
    reference: &str,
) -> Result<Authorized<OrganizationScope, A>, Problem>
where
    A: OrganizationAct,
{
    let unknown = || Problem::from(Denied::Hidden { noun: "organization" });
    let id: OrganizationId = reference.parse().map_err(|_| unknown())?;
    let mut conn = api.connection().await?;
    let scope = store::organizations::scope(&mut conn, id).await?.ok_or_else(unknown)?;
    match Authorized::<OrganizationScope, A>::check(principal, scope) {
        Ok(right) => Ok(right),
        Err(denied) => {
            if let Denied::Forbidden { .. } = denied {
                let record = Record::by(principal, caller, A::NAME).on("organization", id.as_uuid(), "");
                api.audit(&mut conn, record.result(AuditResult::Denied)).await?;
            }
            Err(denied.into())
        }
    }
}
