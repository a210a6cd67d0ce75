//! Members of organizations.

pub(super) mod add;
pub(super) mod list;
pub(super) mod remove;
pub(super) mod update;

use berth_api_types::public::Member;
use berth_http::Problem;

use crate::store::organizations::MemberChange;

/// Translates the outcome of a change of a member for the client.
fn changed(change: MemberChange) -> Result<Member, Problem> {
    match change {
        MemberChange::Done(member) => Ok(member),
        MemberChange::Absent => Err(Problem::not_found("they are not a member of this organization")),
        MemberChange::LastOwner => {
            Err(Problem::conflict("last_owner", "they are the last owner: make another member an owner first"))
        }
    }
}
