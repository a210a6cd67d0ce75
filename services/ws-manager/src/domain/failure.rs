//! What the end of a pod means. A table with one row per way in which kubelets and node agents report it, because each has once been misread
//! by some controller: a kill for lack of memory as a crash, an eviction as a user's mistake, a transient report of the kubelet as an end.

use k8s_openapi::api::core::v1::{ContainerState, Pod};

/// What is to be concluded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody's fault, and nothing of the user's is lost if it happened before the workspace was ready: worth another attempt.
    Rejected(String),
    /// The instance failed; another attempt would fail in the same way.
    Failed(String),
    /// It came to its end by itself.
    Ended(String),
}

/// The parts of a pod's status that say how it ended, flattened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// `status.phase`.
    pub phase: String,
    /// `status.reason`.
    pub reason: String,
    /// `status.message`.
    pub message: String,
    /// What the container waits for.
    pub waiting: Option<Waiting>,
    /// How the container ended.
    pub exit: Option<Exit>,
    /// The container's memory limit, for the message.
    pub memory: Option<String>,
}

/// `state.waiting` of the container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waiting {
    /// A word in CamelCase.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// `state.terminated` of the container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exit {
    /// Exit status.
    pub code: i32,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// A word in CamelCase.
    pub reason: String,
    /// Termination message.
    pub message: String,
    /// The message is our node agent's: a sentence for people, not the tail of a log.
    pub is_explained: bool,
}

impl Facts {
    /// Extracts the facts from a pod. The workspace's container is the first.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        let Some(status) = pod.status.as_ref() else { return Self::default() };
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let container = status
            .container_statuses
            .iter()
            .flatten()
            .find(|container| container.name == berth_workspace_crd::CONTAINER);
        let state = container.and_then(|container| container.state.as_ref());
        let ours = container
            .and_then(|container| container.container_id.as_deref())
            .is_some_and(|id| id.starts_with("hull://"));
        let memory = pod.spec.as_ref().and_then(|spec| {
            let limits = spec.containers.first()?.resources.as_ref()?.limits.as_ref()?;
            limits.get("memory").map(|quantity| quantity.0.clone())
        });
        let (waiting, exit) = state.map(|state| Self::state(state, ours)).unwrap_or_default();
        Self {
            phase: text(&status.phase),
            reason: text(&status.reason),
            message: text(&status.message),
            waiting,
            exit,
            memory,
        }
    }

    fn state(state: &ContainerState, ours: bool) -> (Option<Waiting>, Option<Exit>) {
        let waiting = state.waiting.as_ref().map(|waiting| Waiting {
            reason: waiting.reason.clone().unwrap_or_default(),
            message: waiting.message.clone().unwrap_or_default(),
        });
        let exit = state.terminated.as_ref().map(|end| Exit {
            code: end.exit_code,
            signal: end.signal.filter(|signal| *signal != 0),
            reason: end.reason.clone().unwrap_or_default(),
            message: end.message.clone().unwrap_or_default(),
            is_explained: ours,
        });
        (waiting, exit)
    }

    fn waits(&self, reasons: &[&str]) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| reasons.contains(&waiting.reason.as_str()))
    }

    fn pod_failed(&self, reasons: &[&str]) -> bool {
        self.phase == "Failed" && reasons.contains(&self.reason.as_str())
    }

    fn exited(&self, test: impl Fn(&Exit) -> bool) -> bool {
        self.exit.as_ref().is_some_and(test)
    }

    /// The pod's own reason and message.
    fn words(&self) -> String {
        match (self.reason.as_str(), self.message.as_str()) {
            ("", "") => "the node gave no reason".to_owned(),
            ("", message) => message.to_owned(),
            (reason, "") => reason.to_owned(),
            (reason, message) => format!("{reason}: {message}"),
        }
    }

    fn waiting_words(&self) -> String {
        self.waiting.as_ref().map_or_else(String::new, |waiting| {
            if waiting.message.is_empty() { waiting.reason.clone() } else { waiting.message.clone() }
        })
    }

    fn last_line(&self) -> Option<String> {
        let line = self.exit.as_ref()?.message.lines().rev().find(|line| !line.trim().is_empty())?;
        Some(line.trim().chars().take(300).collect())
    }

    fn exit_words(&self) -> String {
        let how = match self.exit.as_ref() {
            Some(Exit { signal: Some(signal), .. }) => format!("was killed by signal {signal}"),
            Some(exit) if exit.code > 128 && exit.code < 128 + 65 => {
                format!("was killed by signal {}", exit.code - 128)
            }
            Some(exit) => format!("ended with exit status {}", exit.code),
            None => "ended".to_owned(),
        };
        match self.last_line() {
            Some(line) if self.exited(|exit| exit.is_explained) => format!("the workspace ended: {line}"),
            Some(line) => format!("the workspace's main process {how}: {line}"),
            None => format!("the workspace's main process {how}"),
        }
    }
}

/// Reasons with which kubelets of many versions refuse a pod: before anything ran, or by taking it away.
const REJECTIONS: &[&str] = &[
    "NodeAffinity",
    "OutOfcpu",
    "OutOfmemory",
    "OutOfpods",
    "OutOfephemeral-storage",
    "OutOfDisk",
    "UnexpectedAdmissionError",
    "TopologyAffinityError",
    "InvalidNodeInfo",
    "Rejected",
];
const TAKEN_AWAY: &[&str] =
    &["Evicted", "Preempting", "Preempted", "NodeShutdown", "Shutdown", "Terminated", "NodeLost", "DeadlineExceeded"];

struct Row {
    matches: fn(&Facts) -> bool,
    verdict: fn(&Facts) -> Option<Verdict>,
}

/// The first row that matches decides, also if it decides that nothing is wrong (yet).
const TABLE: &[Row] = &[
    // Our node agent's two reasons; its messages are for people.
    Row {
        matches: |facts| facts.pod_failed(&["StartError"]) && !facts.message.is_empty(),
        verdict: |facts| Some(Verdict::Failed(facts.message.clone())),
    },
    Row {
        matches: |facts| facts.pod_failed(&["Rejected"]) && !facts.message.is_empty(),
        verdict: |facts| Some(Verdict::Rejected(facts.message.clone())),
    },
    Row {
        matches: |facts| facts.pod_failed(REJECTIONS),
        verdict: |facts| Some(Verdict::Rejected(format!("the node refused the workspace: {}", facts.words()))),
    },
    Row {
        matches: |facts| facts.pod_failed(TAKEN_AWAY),
        verdict: |facts| Some(Verdict::Rejected(format!("the node took the workspace away: {}", facts.words()))),
    },
    // A pull that failed once is retried by the puller; only the back-off says that it keeps failing.
    Row { matches: |facts| facts.waits(&["ErrImagePull"]), verdict: |_| None },
    Row {
        matches: |facts| {
            facts.waits(&["ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"])
        },
        verdict: |facts| Some(Verdict::Failed(format!("the image cannot be pulled: {}", facts.waiting_words()))),
    },
    Row {
        matches: |facts| {
            facts.waits(&[
                "CreateContainerConfigError",
                "CreateContainerError",
                "RunContainerError",
                "CrashLoopBackOff",
            ])
        },
        verdict: |facts| {
            Some(Verdict::Failed(format!("the workspace's container cannot be started: {}", facts.waiting_words())))
        },
    },
    Row {
        matches: |facts| facts.exited(|exit| exit.reason == "OOMKilled"),
        verdict: |facts| {
            let limit = facts.memory.as_ref().map(|memory| format!(" ({memory} bytes)")).unwrap_or_default();
            Some(Verdict::Failed(format!(
                "the workspace used up its memory{limit} and its main process was killed: choose a larger class"
            )))
        },
    },
    // The kubelet restarted and has not found the container yet; its next report counts.
    Row {
        matches: |facts| {
            facts.phase != "Failed" && facts.exited(|exit| exit.reason == "ContainerStatusUnknown" && exit.code == 137)
        },
        verdict: |_| None,
    },
    Row {
        matches: |facts| facts.exited(|exit| exit.reason == "NodeRestarted"),
        verdict: |_| Some(Verdict::Rejected("the machine was restarted while the workspace ran".to_owned())),
    },
    Row {
        matches: |facts| {
            facts.exited(|exit| exit.reason == "ContainerStatusUnknown" || exit.reason == "Unknown" || exit.code == 255)
        },
        verdict: |facts| {
            let line = facts.last_line().map(|line| format!(": {line}")).unwrap_or_default();
            Some(Verdict::Failed(format!("the workspace's main process ended and its exit status is unknown{line}")))
        },
    },
    Row {
        matches: |facts| facts.exited(|exit| matches!(exit.reason.as_str(), "StartError" | "ContainerCannotRun")),
        verdict: |facts| {
            let line = facts.last_line().unwrap_or_else(|| "the runtime gave no reason".to_owned());
            Some(Verdict::Failed(format!("the workspace's container cannot be started: {line}")))
        },
    },
    Row {
        matches: |facts| facts.exited(|exit| exit.code == 0 && exit.signal.is_none()),
        verdict: |_| Some(Verdict::Ended("the workspace ended by itself: its main process exited".to_owned())),
    },
    Row { matches: |facts| facts.exit.is_some(), verdict: |facts| Some(Verdict::Failed(facts.exit_words())) },
    Row {
        matches: |facts| facts.phase == "Succeeded",
        verdict: |_| Some(Verdict::Ended("the workspace ended by itself: its main process exited".to_owned())),
    },
    Row {
        matches: |facts| facts.phase == "Failed",
        verdict: |facts| Some(Verdict::Failed(format!("the workspace's pod failed: {}", facts.words()))),
    },
];

/// What the facts mean; `None` while nothing is wrong.
#[must_use]
pub fn classify(facts: &Facts) -> Option<Verdict> {
    TABLE.iter().find(|row| (row.matches)(facts)).and_then(|row| (row.verdict)(facts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(reason: &str, message: &str) -> Facts {
        Facts { phase: "Failed".into(), reason: reason.into(), message: message.into(), ..Facts::default() }
    }

    fn exit(phase: &str, code: i32, reason: &str, message: &str) -> Facts {
        let exit = Exit { code, signal: None, reason: reason.into(), message: message.into(), is_explained: false };
        Facts { phase: phase.into(), exit: Some(exit), ..Facts::default() }
    }

    fn waiting(reason: &str, message: &str) -> Facts {
        let waiting = Waiting { reason: reason.into(), message: message.into() };
        Facts { phase: "Pending".into(), waiting: Some(waiting), ..Facts::default() }
    }

    #[test]
    fn each_quirk_has_its_row() {
        let fine = None::<(&str, &str)>;
        let table = [
            (Facts { phase: "Running".into(), ..Facts::default() }, fine),
            (Facts { phase: "Pending".into(), ..Facts::default() }, fine),
            (waiting("ContainerCreating", ""), fine),
            (waiting("ErrImagePull", "connection refused"), fine),
            (waiting("ImagePullBackOff", "no such image x:1"), Some(("failed", "no such image x:1"))),
            (waiting("InvalidImageName", ""), Some(("failed", "InvalidImageName"))),
            (waiting("RunContainerError", "exec format"), Some(("failed", "exec format"))),
            (failed("OutOfcpu", "Pod was rejected: Node didn't have enough resource"), Some(("rejected", "OutOfcpu"))),
            (failed("NodeAffinity", "Pod was rejected"), Some(("rejected", "NodeAffinity"))),
            (failed("Evicted", "The node was low on resource: memory"), Some(("rejected", "low on resource"))),
            (failed("NodeShutdown", ""), Some(("rejected", "NodeShutdown"))),
            (failed("StartError", "branch x does not exist"), Some(("failed", "branch x does not exist"))),
            (failed("Rejected", "the loop device is busy"), Some(("rejected", "the loop device is busy"))),
            (failed("", ""), Some(("failed", "no reason"))),
            (failed("SysctlForbidden", "x"), Some(("failed", "SysctlForbidden: x"))),
            (exit("Failed", 137, "OOMKilled", ""), Some(("failed", "choose a larger class"))),
            (exit("Running", 137, "ContainerStatusUnknown", "gone"), fine),
            (exit("Failed", 137, "ContainerStatusUnknown", "gone"), Some(("failed", "unknown: gone"))),
            (exit("Failed", 255, "Error", ""), Some(("failed", "exit status is unknown"))),
            (exit("Failed", 255, "Unknown", ""), Some(("failed", "exit status is unknown"))),
            (exit("Failed", 137, "Error", ""), Some(("failed", "killed by signal 9"))),
            (exit("Failed", 1, "Error", "a\nboom\n\n"), Some(("failed", "exit status 1: boom"))),
            (exit("Failed", 128, "StartError", "no such file: /bin/x"), Some(("failed", "no such file: /bin/x"))),
            (exit("Failed", 137, "NodeRestarted", ""), Some(("rejected", "restarted"))),
            (exit("Succeeded", 0, "Completed", ""), Some(("ended", "by itself"))),
            (Facts { phase: "Succeeded".into(), ..Facts::default() }, Some(("ended", "by itself"))),
        ];
        for (facts, expected) in table {
            let got = classify(&facts);
            let seen = got.as_ref().map(|verdict| match verdict {
                Verdict::Rejected(text) => ("rejected", text.as_str()),
                Verdict::Failed(text) => ("failed", text.as_str()),
                Verdict::Ended(text) => ("ended", text.as_str()),
            });
            match (seen, expected) {
                (None, None) => {}
                (Some((kind, text)), Some((wanted, part))) if kind == wanted && text.contains(part) => {}
                _ => panic!("{facts:?}: got {got:?}, expected {expected:?}"),
            }
        }
    }
}
