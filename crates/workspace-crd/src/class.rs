//! Workspace classes: what a tier gives, and what it costs.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a workspace of this class gets, and its price.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "berth.dev",
    version = "v1",
    kind = "WorkspaceClass",
    doc = "A size of workspaces and its price.",
    plural = "workspaceclasses",
    shortname = "wsc",
    printcolumn = r#"{"name":"CPU","type":"integer","jsonPath":".spec.cpuMillis","description":"thousandths of a core"}"#,
    printcolumn = r#"{"name":"Memory","type":"integer","jsonPath":".spec.memoryBytes"}"#,
    printcolumn = r#"{"name":"Disk","type":"integer","jsonPath":".spec.diskBytes"}"#,
    printcolumn = r#"{"name":"Credits/h","type":"string","jsonPath":".spec.creditsPerHour"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceClassSpec {
    /// Name shown to users.
    #[serde(default)]
    pub display_name: String,
    /// Upper bound, thousandths of a core.
    #[schemars(range(min = 10, max = 1_024_000))]
    pub cpu_millis: u32,
    /// Upper bound in bytes.
    #[schemars(range(min = 33_554_432))]
    pub memory_bytes: i64,
    /// Size of the workspace's disk in bytes.
    #[schemars(range(min = 67_108_864))]
    pub disk_bytes: i64,
    /// Processes and threads at most.
    #[schemars(range(min = 16, max = 4_194_304))]
    pub pids: u32,
    /// Bytes per second read from and written to the disk, each; none means no bound. On cgroup v1 the bound holds for reads and direct writes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_bytes_per_second: Option<i64>,
    /// No process gains privileges by executing a program: `sudo` does not work.
    #[serde(default)]
    pub no_new_privileges: bool,
    /// Price, a decimal number with at most six places, for example `"1.5"`.
    #[schemars(regex(pattern = r"^[0-9]{1,12}(\.[0-9]{1,6})?$"))]
    pub credits_per_hour: String,
}
