//! berth-kube-embedded
