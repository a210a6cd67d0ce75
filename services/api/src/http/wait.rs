//! `?wait=`: whether an answer waits for the work to be done.

use serde::Deserialize;
use utoipa::IntoParams;

/// The work is done in any case; this decides when the answer comes.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wait {
    /// `true`: answer when it is done (202 if that takes too long); `false`: answer at once. When absent, as the operation says.
    #[serde(default)]
    pub wait: Option<bool>,
}
