//! The packet filter as data: pure functions that make the JSON for `nft -j -f -`, so that every change is one transaction.
//!
//! On the host one table holds for all workspaces: outbound only, to public addresses only, never to another workspace, never to the host;
//! what is opened for single workspaces is in sets keyed by the name of their interface. In a workspace's own namespace a small table
//! redirects connections to opened services of the host's loopback to the host.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::slot::{INTERFACE_PREFIX, Slot, Subnets};

/// Name of our table inside a workspace's namespace.
const TABLE: &str = "berth";

/// Connections that one workspace may have to the outside, and as many to the host. The kernel remembers all of them in one table (262,144 by
/// default): without a limit, one workspace could cut off all others and the host.
const MOST_CONNECTIONS: u32 = 16_384;

/// Addresses that are no public internet (RFC 6890): closed unless opened by name.
const PRIVATE: [(&str, u8); 15] = [
    ("0.0.0.0", 8),
    ("10.0.0.0", 8),
    ("100.64.0.0", 10),
    ("127.0.0.0", 8),
    ("169.254.0.0", 16),
    ("172.16.0.0", 12),
    ("192.0.0.0", 24),
    ("192.0.2.0", 24),
    ("192.88.99.0", 24),
    ("192.168.0.0", 16),
    ("198.18.0.0", 15),
    ("198.51.100.0", 24),
    ("203.0.113.0", 24),
    ("224.0.0.0", 4),
    ("240.0.0.0", 4),
];

/// A service that one workspace may reach although its address is closed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Opening {
    /// Where it is.
    pub address: Ipv4Addr,
    /// Its TCP port.
    pub port: u16,
    /// How it is reached.
    pub kind: OpeningKind,
}

/// How an opened service is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpeningKind {
    /// Through the host, on another machine.
    Forwarded,
    /// On the host, at one of its own addresses.
    Host,
    /// On the host's loopback: rewritten on both sides.
    Loopback,
}

/// What the host's table depends on.
#[derive(Debug, Clone, Default)]
pub struct HostTable {
    /// Name servers that workspaces may ask although their address is closed.
    pub name_servers: Vec<Ipv4Addr>,
    /// The name server on the host's loopback, if that is what the host uses.
    pub loopback_name_server: Option<Ipv4Addr>,
    /// Interfaces to the outside on which forwarding was off: nothing but answers to workspaces may come in through them.
    pub uplinks_opened: Vec<String>,
}

fn matches(left: Value, right: Value) -> Value {
    json!({ "match": { "op": "==", "left": left, "right": right } })
}

fn not(left: Value, right: Value) -> Value {
    json!({ "match": { "op": "!=", "left": left, "right": right } })
}

fn meta(key: &str) -> Value {
    json!({ "meta": { "key": key } })
}

fn field(protocol: &str, field: &str) -> Value {
    json!({ "payload": { "protocol": protocol, "field": field } })
}

fn concat(parts: &[Value]) -> Value {
    json!({ "concat": parts })
}

fn established() -> Value {
    json!({ "match": { "op": "in", "left": { "ct": { "key": "state" } }, "right": ["established", "related"] } })
}

fn accept() -> Value {
    json!({ "accept": null })
}

fn drop() -> Value {
    json!({ "drop": null })
}

/// A rejection, so that the user gets an error at once, instead of a connection that hangs.
fn reject() -> Value {
    json!({ "reject": { "type": "icmpx", "expr": "admin-prohibited" } })
}

/// Rejects new connections of a workspace that has too many. Counted by the interface's number, which no other workspace gets later.
fn limited(chain: &str, from_us: &Value) -> Value {
    let over = json!({ "ct count": { "val": MOST_CONNECTIONS, "inv": true } });
    let name = format!("connections_{chain}");
    rule(chain, vec![from_us.clone(), json!({ "meter": { "name": name, "key": meta("iif"), "stmt": over } }), reject()])
}

fn ours(subnets: &Subnets) -> Value {
    Value::String(format!("{}*", subnets.prefix()))
}

fn prefix(address: &str, length: u8) -> Value {
    json!({ "prefix": { "addr": address, "len": length } })
}

fn rule(chain: &str, expr: Vec<Value>) -> Value {
    json!({ "add": { "rule": { "family": "inet", "table": TABLE, "chain": chain, "expr": expr } } })
}

fn chain(name: &str, kind: &str, hook: &str, priority: i32) -> Value {
    json!({ "add": { "chain": {
        "family": "inet", "table": TABLE, "name": name, "type": kind, "hook": hook, "prio": priority, "policy": "accept"
    } } })
}

fn set(name: &str, kinds: &[&str]) -> Value {
    json!({ "add": { "set": { "family": "inet", "table": TABLE, "name": name, "type": kinds } } })
}

fn replace_table() -> Vec<Value> {
    let table = json!({ "table": { "family": "inet", "name": TABLE } });
    // Adding before deleting makes the deletion succeed on a machine that has none.
    vec![json!({ "add": table }), json!({ "delete": table }), json!({ "add": table })]
}

/// The commands with another table's name.
fn in_table(mut commands: Vec<Value>, name: &str) -> Vec<Value> {
    for command in &mut commands {
        for verb in command.as_object_mut().into_iter().flat_map(|command| command.values_mut()) {
            for (kind, object) in verb.as_object_mut().into_iter().flatten() {
                object[if kind == "table" { "name" } else { "table" }] = json!(name);
            }
        }
    }
    commands
}

fn whole(commands: Vec<Value>) -> Value {
    json!({ "nftables": commands })
}

/// The host's table with what is opened for the given workspaces; replaces the former one in one transaction.
#[must_use]
pub fn host_table(table: &HostTable, subnets: &Subnets, open: &[(Slot, Vec<Opening>)]) -> Value {
    let mut commands = replace_table();
    commands.push(set("opened_forward", &["ifname", "ipv4_addr", "inet_service"]));
    commands.push(set("opened_host", &["ifname", "ipv4_addr", "inet_service"]));
    commands.push(json!({ "add": { "map": {
        "family": "inet", "table": TABLE, "name": "opened_loopback", "type": ["ifname", "inet_service"], "map": "ipv4_addr"
    } } }));
    commands.push(chain("prerouting", "nat", "prerouting", -100));
    commands.push(chain("postrouting", "nat", "postrouting", 100));
    commands.push(chain("forward", "filter", "forward", 0));
    commands.push(chain("input", "filter", "input", 0));
    commands.extend(translation(table, subnets));
    commands.extend(to_workspaces(table, subnets));
    commands.extend(to_the_outside(table, subnets));
    commands.extend(to_the_host(table, subnets));
    for (slot, openings) in open {
        commands.extend(element_commands("add", subnets, *slot, openings));
    }
    whole(in_table(commands, &subnets.table()))
}

/// Which addresses are rewritten.
fn translation(table: &HostTable, subnets: &Subnets) -> Vec<Value> {
    // A service of the host's loopback is asked at the workspace's gateway.
    let gateways = prefix(&subnets.base().to_string(), subnets.prefix_length());
    let to_gateway = [matches(meta("iifname"), ours(subnets)), matches(field("ip", "daddr"), gateways.clone())];
    let rewritten = |more: [Value; 2]| rule("prerouting", to_gateway.iter().cloned().chain(more).collect());
    let opened =
        json!({ "map": { "key": concat(&[meta("iifname"), field("tcp", "dport")]), "data": "@opened_loopback" } });
    let mut commands = vec![rewritten([
        matches(meta("l4proto"), json!("tcp")),
        json!({ "dnat": { "family": "ip", "addr": opened } }),
    ])];
    if let Some(server) = table.loopback_name_server {
        commands.extend(["udp", "tcp"].map(|protocol| {
            rewritten([
                matches(field(protocol, "dport"), json!(53)),
                json!({ "dnat": { "family": "ip", "addr": server.to_string() } }),
            ])
        }));
    }
    commands.push(rule(
        "postrouting",
        vec![
            matches(field("ip", "saddr"), gateways),
            not(meta("oifname"), ours(subnets)),
            not(meta("oifname"), json!("lo")),
            json!({ "masquerade": null }),
        ],
    ));
    commands
}

/// Answers only. Also closes the way from one workspace to another.
fn to_workspaces(table: &HostTable, subnets: &Subnets) -> Vec<Value> {
    let mut commands = vec![
        rule("forward", vec![matches(meta("oifname"), ours(subnets)), established(), accept()]),
        rule("forward", vec![matches(meta("oifname"), ours(subnets)), drop()]),
    ];
    for uplink in &table.uplinks_opened {
        // Another home's workspaces on this machine see to themselves.
        let others = not(meta("oifname"), Value::String(format!("{INTERFACE_PREFIX}*")));
        commands.push(rule("forward", vec![matches(meta("iifname"), json!(uplink)), others, drop()]));
    }
    commands
}

fn to_the_outside(table: &HostTable, subnets: &Subnets) -> Vec<Value> {
    let from_us = matches(meta("iifname"), ours(subnets));
    let mut commands = vec![
        rule("forward", vec![from_us.clone(), established(), accept()]),
        // No IPv6 addresses are assigned; whatever uses one was set up by the workspace itself.
        rule("forward", vec![from_us.clone(), not(meta("nfproto"), json!("ipv4")), drop()]),
        limited("forward", &from_us),
    ];
    commands.extend(to_name_servers("forward", table, &from_us));
    commands.push(rule("forward", vec![from_us.clone(), matches(service(), json!("@opened_forward")), accept()]));
    let private: Vec<Value> = PRIVATE.iter().map(|(address, length)| prefix(address, *length)).collect();
    commands.push(rule("forward", vec![from_us, matches(field("ip", "daddr"), json!({ "set": private })), reject()]));
    commands
}

/// Only what was rewritten by the rules of the translation, and what was opened at the host's own addresses.
fn to_the_host(table: &HostTable, subnets: &Subnets) -> Vec<Value> {
    let from_us = matches(meta("iifname"), ours(subnets));
    let rewritten = json!({ "match": { "op": "in", "left": { "ct": { "key": "status" } }, "right": "dnat" } });
    let mut commands = vec![
        rule("input", vec![from_us.clone(), established(), accept()]),
        limited("input", &from_us),
        rule("input", vec![from_us.clone(), rewritten, accept()]),
        rule("input", vec![from_us.clone(), matches(service(), json!("@opened_host")), accept()]),
    ];
    commands.extend(to_name_servers("input", table, &from_us));
    commands.push(rule("input", vec![from_us, reject()]));
    commands
}

/// Which workspace asks for which service.
fn service() -> Value {
    concat(&[meta("iifname"), field("ip", "daddr"), field("tcp", "dport")])
}

fn to_name_servers(chain: &str, table: &HostTable, from_us: &Value) -> Vec<Value> {
    let mut commands = Vec::new();
    for server in &table.name_servers {
        for protocol in ["udp", "tcp"] {
            let to_server = matches(field("ip", "daddr"), json!(server.to_string()));
            let asks = matches(field(protocol, "dport"), json!(53));
            commands.push(rule(chain, vec![from_us.clone(), to_server, asks, accept()]));
        }
    }
    commands
}

fn element_commands(verb: &str, subnets: &Subnets, slot: Slot, openings: &[Opening]) -> Vec<Value> {
    let interface = slot.interface(subnets);
    openings
        .iter()
        .map(|opening| {
            let port = opening.port;
            let (name, element) = match opening.kind {
                OpeningKind::Forwarded => {
                    ("opened_forward", concat(&[json!(interface), json!(opening.address.to_string()), json!(port)]))
                }
                OpeningKind::Host => {
                    ("opened_host", concat(&[json!(interface), json!(opening.address.to_string()), json!(port)]))
                }
                OpeningKind::Loopback => {
                    let key = concat(&[json!(interface), json!(port)]);
                    let element = if verb == "add" { json!([key, opening.address.to_string()]) } else { key };
                    ("opened_loopback", element)
                }
            };
            json!({ verb: { "element": { "family": "inet", "table": TABLE, "name": name, "elem": [element] } } })
        })
        .collect()
}

/// Opens services for one workspace, in one transaction.
#[must_use]
pub fn open(subnets: &Subnets, slot: Slot, openings: &[Opening]) -> Value {
    whole(in_table(element_commands("add", subnets, slot, openings), &subnets.table()))
}

/// Closes them again.
#[must_use]
pub fn close(subnets: &Subnets, slot: Slot, openings: &[Opening]) -> Value {
    whole(in_table(element_commands("delete", subnets, slot, openings), &subnets.table()))
}

/// The table inside a workspace's namespace: connections to an opened port of its own loopback go to the host's. Only these ports: the rest
/// of 127.0.0.0/8 is the workspace's own.
#[must_use]
pub fn inner_table(gateway: Ipv4Addr, openings: &[Opening]) -> Value {
    let mut commands = replace_table();
    commands.push(chain("output", "nat", "output", -100));
    commands.push(chain("postrouting", "nat", "postrouting", 100));
    for opening in openings.iter().filter(|opening| opening.kind == OpeningKind::Loopback) {
        commands.push(rule(
            "output",
            vec![
                matches(field("ip", "daddr"), json!(opening.address.to_string())),
                matches(field("tcp", "dport"), json!(opening.port)),
                json!({ "dnat": { "family": "ip", "addr": gateway.to_string() } }),
            ],
        ));
    }
    commands.push(rule(
        "postrouting",
        vec![
            matches(field("ip", "saddr"), prefix("127.0.0.0", 8)),
            not(meta("oifname"), json!("lo")),
            json!({ "masquerade": null }),
        ],
    ));
    whole(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Vec<Opening> {
        vec![
            Opening { address: Ipv4Addr::LOCALHOST, port: 8080, kind: OpeningKind::Loopback },
            Opening { address: Ipv4Addr::new(10, 1, 2, 3), port: 443, kind: OpeningKind::Forwarded },
            Opening { address: Ipv4Addr::new(192, 0, 2, 2), port: 22, kind: OpeningKind::Host },
        ]
    }

    /// Whether nft takes it, without changing anything.
    #[expect(clippy::print_stderr, reason = "a skipped test says why")]
    fn nft_takes(ruleset: &Value) {
        use std::io::Write;
        let child = std::process::Command::new("nft")
            .args(["-j", "-c", "-f", "-"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn();
        let (Ok(mut child), true) = (child, rustix::process::geteuid().is_root()) else {
            eprintln!("skipped: needs root and nft");
            return;
        };
        child.stdin.take().unwrap().write_all(ruleset.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        );
    }

    #[test]
    fn the_host_table_is_as_recorded_and_valid() {
        let table = HostTable {
            name_servers: vec![Ipv4Addr::new(10, 255, 255, 53)],
            loopback_name_server: Some(Ipv4Addr::new(127, 0, 0, 53)),
            uplinks_opened: vec!["eth0".to_owned()],
        };
        let ruleset = host_table(&table, &Subnets::default(), &[(Slot(3), some())]);
        insta::assert_json_snapshot!(ruleset);
        nft_takes(&ruleset);
    }

    #[test]
    fn the_inner_table_leads_only_opened_loopback_ports_out() {
        let ruleset = inner_table(Ipv4Addr::new(10, 209, 0, 13), &some());
        insta::assert_json_snapshot!(ruleset);
        nft_takes(&ruleset);
    }
}
