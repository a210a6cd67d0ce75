//! The network of workspaces, tried from inside them: what is open and what is closed, names, and the way out.
//!
//! The node of these tests has network and mount namespaces to itself, and behind a veth pair a second network namespace plays the outside. No
//! address, route or packet filter of the machine is touched, and all of it is gone with the process.

mod outside;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use berth_node::instance::Node;
use berth_testkit::GitServer;

use self::outside::{LARGE, LARGE_COUNT, NAME, Outside, PRIVATE, PUBLIC, Resolver, answer, ask, within};
use crate::support::{TestHome, TestNode, request, run, steps};

/// Tells the process that it is the one in namespaces of its own.
const ROLE: &str = "BERTH_NODE_TEST_NETWORK";

/// Namespaces of its own for what follows; `/sys` must be mounted anew to show its interfaces, and keeps the machine's cgroups.
const OWN_NAMESPACES: &str = r#"set -e
mount --rbind /sys "$1"
mount -t sysfs sysfs /sys
mount --rbind "$1/fs/cgroup" /sys/fs/cgroup
umount --lazy "$1"
mount --bind "$2" /etc/resolv.conf
ip link set lo up
shift 2
exec "$@""#;

/// Runs the test of this name again in namespaces of its own, with a `resolv.conf` that names the two resolvers; false in that second process.
async fn ran_apart(test: &str) -> bool {
    if std::env::var_os(ROLE).is_some() {
        return false;
    }
    // Held meanwhile: the second process works in the same home.
    let Some(home) = TestHome::lock(|_| {}).await else { return true };
    let folder = tempfile::tempdir().unwrap();
    let (sys, resolv_conf) = (folder.path().join("sys"), folder.path().join("resolv.conf"));
    std::fs::create_dir(&sys).unwrap();
    std::fs::write(&resolv_conf, "nameserver 127.0.0.53\nnameserver 192.168.253.2\nsearch corp.test\n").unwrap();
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "sh", "-c", OWN_NAMESPACES, "sh"])
        .args([&sys, &resolv_conf])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ROLE, "1")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(out.contains("1 passed"), "{test} in namespaces of its own: {}\n{out}{err}", output.status);
    home.assert_clean();
    true
}

/// What a workspace gets from these URLs; those that it does not reach are left out.
async fn reached(node: &Node, id: &str, urls: &[String]) -> BTreeMap<String, String> {
    // Side by side: a packet that is dropped costs the whole time.
    let program =
        "for url; do (got=$(curl -gs -m 4 \"$url\") && printf '%s %s\\n' \"$url\" \"$got\") & done; wait; true";
    let mut argv = vec!["sh", "-c", program, "sh"];
    argv.extend(urls.iter().map(String::as_str));
    let output = run(node, id, &argv).await.unwrap();
    output.lines().filter_map(|line| line.split_once(' ')).map(|(url, got)| (url.to_owned(), got.to_owned())).collect()
}

fn urls(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(|address| format!("http://{address}/")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_public_addresses_and_what_was_opened_are_reached() {
    if ran_apart("network::only_public_addresses_and_what_was_opened_are_reached").await {
        return;
    }
    let outside = Outside::make();
    let t = TestNode::open().await.unwrap();
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();

    // Whoever listens: on every address of the host, on its loopback, and on every address of the outside.
    let everywhere = answer("0.0.0.0:0");
    let both_families = answer("[::]:0");
    let loopback = answer("127.0.0.1:0");
    let [far, far_too] = [(); 2].map(|()| within(&outside.namespace(), || answer("[::]:0")));
    let opened = SocketAddr::new(PRIVATE[0].1.into(), far);
    let opened_host = SocketAddr::new(PRIVATE[0].0.into(), everywhere);
    let opened_loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, loopback));

    let mut one = request(1, &repository, "main");
    one.allow_private_hosts.extend([opened, opened_host, opened_loopback].map(|address| address.to_string()));
    let two = request(2, &repository, "main");
    let (steps_one, steps_two, never) = (steps(), steps(), Default::default());
    let (a, b) =
        tokio::join!(t.node.start(one.clone(), &steps_one, &never), t.node.start(two.clone(), &steps_two, &never));
    let networks = t.node.networks();
    let (own, neighbour) =
        (networks.network(a.unwrap().instance.record().slot), networks.network(b.unwrap().instance.record().slot));
    let at_the_neighbour = within(&neighbour.namespace, || answer("0.0.0.0:0"));

    let mut closed: Vec<SocketAddr> = Vec::new();
    for host in PRIVATE.map(|(host, _)| host).into_iter().chain([PUBLIC.0, own.gateway, neighbour.gateway]) {
        closed.extend([everywhere, both_families].map(|port| SocketAddr::new(host.into(), port)));
    }
    for (_, address) in PRIVATE {
        closed.extend([far, far_too].map(|port| SocketAddr::new(address.into(), port)));
    }
    closed.push(SocketAddr::new(neighbour.address.into(), at_the_neighbour));
    closed.retain(|address| ![opened, opened_host].contains(address));
    let public = SocketAddr::new(PUBLIC.1.into(), far);
    // What is closed to workspaces is no riddle to the host: it could be reached.
    for address in closed.iter().chain([&public, &opened, &opened_host, &opened_loopback]) {
        assert!(ask(*address).is_some(), "the test's own {address} does not answer the host");
    }
    let everything = urls(&[&closed[..], &[public, opened, opened_host, opened_loopback]].concat());

    let masqueraded = PUBLIC.0.to_string();
    let answers = reached(&t.node, &one.instance_id, &everything).await;
    let allowed = urls(&[public, opened, opened_host, opened_loopback]);
    assert_eq!(answers.keys().cloned().collect::<Vec<_>>(), sorted(allowed), "{answers:?}");
    // By NAT: the outside saw the host's address, not the workspace's.
    assert_eq!(answers[&format!("http://{public}/")], masqueraded);
    assert_ne!(answers[&format!("http://{opened}/")], own.address.to_string());
    // Nobody else's openings; what listens in it is its own.
    let answers = reached(&t.node, &two.instance_id, &everything).await;
    let allowed = urls(&[public, SocketAddr::new(neighbour.address.into(), at_the_neighbour)]);
    assert_eq!(answers.keys().cloned().collect::<Vec<_>>(), sorted(allowed), "{answers:?}");
    assert_eq!(answers[&format!("http://{public}/")], masqueraded);

    // Nobody comes in from outside, although it knows the way.
    outside.ip(&format!("route add {} via {}", neighbour.address, PUBLIC.0));
    let target = SocketAddr::new(neighbour.address.into(), at_the_neighbour);
    assert_eq!(within(&outside.namespace(), move || ask(target)), None, "the outside came in");

    closed_for_ipv6(&outside, &t, &own, &one.instance_id, both_families, far).await;
    t.close().await;
}

fn sorted(mut urls: Vec<String>) -> Vec<String> {
    urls.sort();
    urls
}

/// A workspace has no IPv6; had it made itself some, on a link whose other end had it too, it would get nowhere.
async fn closed_for_ipv6(
    outside: &Outside,
    t: &TestNode,
    own: &berth_node::network::Network,
    id: &str,
    at_the_host: u16,
    far: u16,
) {
    let targets = [
        format!("http://[fe80::b1%25eth0]:{at_the_host}/"),
        format!("http://[fdaa::1]:{at_the_host}/"),
        format!("http://[fd12::1]:{at_the_host}/"),
        format!("http://[fd12::2]:{far}/"),
    ];
    assert_eq!(reached(&t.node, id, &targets).await, BTreeMap::new());
    let inner = own.namespace.clone();
    let link = outside::interface_with(own.gateway);
    outside::write(&format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6"), "0");
    outside::write("/proc/sys/net/ipv6/conf/all/forwarding", "1");
    outside::ip(&["address add fe80::b1/64 nodad dev", &link].join(" "));
    outside::ip(&["address add fdaa::1/64 nodad dev", &link].join(" "));
    within(&inner, || {
        outside::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "0");
        outside::ip("address add fe80::b2/64 nodad dev eth0");
        outside::ip("address add fdaa::2/64 nodad dev eth0");
        outside::ip("route add default via fdaa::1");
    });
    outside.ip("route add fdaa::/64 via fd12::1");
    assert!(ask(SocketAddr::new("fd12::2".parse().unwrap(), far)).is_some(), "the outside has no IPv6");
    assert_eq!(reached(&t.node, id, &targets).await, BTreeMap::new());
}

/// A node with a workspace that runs, its id, and the host's address towards it.
async fn with_a_workspace() -> (TestNode, String, Ipv4Addr) {
    let t = TestNode::open().await.unwrap();
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let wanted = request(1, &repository, "main");
    let id = wanted.instance_id.clone();
    let ready = t.node.start(wanted, &steps(), &Default::default()).await.unwrap();
    let gateway = t.node.networks().network(ready.instance.record().slot).gateway;
    (t, id, gateway)
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_resolved_by_the_machines_name_servers() {
    if ran_apart("network::names_are_resolved_by_the_machines_name_servers").await {
        return;
    }
    let outside = Outside::make();
    // One on the machine's loopback, as many distributions have it, and one at a private address.
    let near = Resolver::start("127.0.0.53:53", PUBLIC.1);
    let _far = within(&outside.namespace(), || Resolver::start("192.168.253.2:53", Ipv4Addr::new(11, 77, 0, 99)));
    let port = within(&outside.namespace(), || answer("0.0.0.0:0"));
    let (t, id, gateway) = with_a_workspace().await;
    let id = &id;
    let resolv_conf = run(&t.node, id, &["cat", "/etc/resolv.conf"]).await.unwrap();
    assert_eq!(resolv_conf, format!("nameserver {gateway}\nnameserver 192.168.253.2\nsearch corp.test"));
    // By name to the outside and back.
    let url = format!("http://{NAME}:{port}/");
    let answers = reached(&t.node, id, std::slice::from_ref(&url)).await;
    assert_eq!(answers.get(&url), Some(&PUBLIC.0.to_string()), "{answers:?}");
    // The second one is asked when the first is gone.
    near.stop();
    assert_eq!(run(&t.node, id, &["getent", "ahostsv4", NAME]).await.unwrap().split(' ').next(), Some("11.77.0.99"));
    let unknown = crate::support::output(&t.node, id, &["getent", "ahostsv4", "unknown.test"]).await.unwrap();
    assert_eq!(unknown.status, berth_supervisor_protocol::ExitStatus::Code(2));
    t.close().await;
}

/// Asks the name server `$ARGV[0]` for the name of the question in `$ARGV[1]` by UDP, taking large answers; the length of the answer.
const ASK: &str = "use IO::Socket::INET; my $s = IO::Socket::INET->new(Proto => 'udp', PeerAddr => $ARGV[0], PeerPort => 53) or die $!; \
    my $name = join '', map { pack 'C/a', $_ } split /[.]/, $ARGV[1]; alarm 20; \
    $s->send(pack('n6', 7, 0x100, 1, 0, 0, 1) . $name . pack('xnn', 1, 1) . pack('xnnNn', 41, 65000, 0, 0)); $s->recv(my $b, 65535); print length $b";

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_fit_into_no_packet_arrive() {
    if ran_apart("network::answers_that_fit_into_no_packet_arrive").await {
        return;
    }
    let outside = Outside::make();
    let near = Resolver::start("127.0.0.53:53", Ipv4Addr::new(11, 77, 1, 0));
    let _far = within(&outside.namespace(), || Resolver::start("192.168.253.2:53", Ipv4Addr::new(11, 77, 2, 0)));
    let (t, id, gateway) = with_a_workspace().await;
    let id = &id;
    // Header, question, and what each address takes. In fragments.
    let length = 12 + LARGE.len() + 2 + 4 + usize::from(LARGE_COUNT) * 16;
    let gateway = gateway.to_string();
    for server in [&*gateway, "192.168.253.2"] {
        assert_eq!(
            run(&t.node, id, &["perl", "-e", ASK, server, LARGE]).await.unwrap(),
            length.to_string(),
            "{server}"
        );
    }
    // Those who take no large ones ask again by TCP.
    let found = async || {
        let lines = run(&t.node, id, &["getent", "ahostsv4", LARGE]).await.unwrap();
        let addresses: std::collections::BTreeSet<&str> =
            lines.lines().filter_map(|line| line.split(' ').next()).collect();
        (addresses.len(), addresses.first().map(|address| address.to_string()))
    };
    assert_eq!(found().await, (LARGE_COUNT.into(), Some("11.77.1.0".to_owned())));
    near.stop();
    assert_eq!(found().await, (LARGE_COUNT.into(), Some("11.77.2.0".to_owned())));
    t.close().await;
}

/// Sends a datagram to each of 20,000 ports, which makes as many connections for the host to remember.
const SPRAY: &str = "use Socket; socket my $s, PF_INET, SOCK_DGRAM, 0 or die; send $s, 'x', 0, sockaddr_in($_, inet_aton($ARGV[0])) for 1 .. 20_000";

#[tokio::test(flavor = "multi_thread")]
async fn one_workspace_leaves_connections_to_the_others() {
    if ran_apart("network::one_workspace_leaves_connections_to_the_others").await {
        return;
    }
    let outside = Outside::make();
    let port = within(&outside.namespace(), || answer("0.0.0.0:0"));
    let t = TestNode::open().await.unwrap();
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let (one, two) = (request(1, &repository, "main"), request(2, &repository, "main"));
    for wanted in [&one, &two] {
        t.node.start(wanted.clone(), &steps(), &Default::default()).await.unwrap();
    }
    // So that none is forgotten meanwhile.
    outside::write("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", "3600");
    run(&t.node, &one.instance_id, &["perl", "-e", SPRAY, &PUBLIC.1.to_string()]).await.unwrap();
    let count: usize =
        std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").unwrap().trim().parse().unwrap();
    assert!((16_000..17_000).contains(&count), "{count} connections");
    let url = format!("http://{}/", SocketAddr::new(PUBLIC.1.into(), port));
    let told = crate::support::output(&t.node, &one.instance_id, &["curl", "-sS", "-m", "20", &url]).await.unwrap();
    assert_eq!(told.status, berth_supervisor_protocol::ExitStatus::Code(7), "at once, not after a while: {told:?}");
    assert_eq!(reached(&t.node, &two.instance_id, std::slice::from_ref(&url)).await.len(), 1);
    t.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_ours_listens_in_a_workspace() {
    let Some(t) = TestNode::open().await else { return };
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let wanted = request(1, &repository, "main");
    let ready = t.node.start(wanted.clone(), &steps(), &Default::default()).await.unwrap();
    let bound = async || {
        // Listening TCP sockets, and every bound UDP socket.
        let program = "cat /proc/net/tcp /proc/net/tcp6 | awk '$4 == \"0A\"'; cat /proc/net/udp /proc/net/udp6 | awk '$1 ~ /^[0-9]+:/'";
        run(&t.node, &wanted.instance_id, &["sh", "-c", program]).await.unwrap()
    };
    assert_eq!(bound().await, "");
    // The question would see one.
    let namespace = t.node.networks().network(ready.instance.record().slot).namespace;
    within(&namespace, || answer("0.0.0.0:0"));
    assert_eq!(bound().await.lines().count(), 1);
    t.close().await;
}
