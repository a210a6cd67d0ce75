//! The outside: a network namespace behind a veth pair, with addresses of every kind that is closed and one that is public.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Public addresses: the host's and the outside's.
pub const PUBLIC: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(11, 77, 0, 1), Ipv4Addr::new(11, 77, 0, 2));
/// Addresses that are closed: the host's and the outside's. The last is where clouds serve a machine's secrets.
pub const PRIVATE: [(Ipv4Addr, Ipv4Addr); 5] = [
    (Ipv4Addr::new(10, 253, 253, 1), Ipv4Addr::new(10, 253, 253, 2)),
    (Ipv4Addr::new(172, 31, 253, 1), Ipv4Addr::new(172, 31, 253, 2)),
    (Ipv4Addr::new(192, 168, 253, 1), Ipv4Addr::new(192, 168, 253, 2)),
    (Ipv4Addr::new(100, 64, 253, 1), Ipv4Addr::new(100, 64, 253, 2)),
    (Ipv4Addr::new(169, 254, 169, 253), Ipv4Addr::new(169, 254, 169, 254)),
];
/// A name that the resolvers know.
pub const NAME: &str = "outside.test";
/// A name with so many addresses that they fit into no packet.
pub const LARGE: &str = "large.test";
/// How many.
pub const LARGE_COUNT: u8 = 200;
/// The host's end of the pair. Not named like one of a workspace.
const UPLINK: &str = "up0";

/// The outside; it ends with its process.
pub struct Outside {
    /// Holds the namespace for as long as its standard input is open.
    holder: Child,
}

impl Outside {
    /// Makes it, as the way to everywhere.
    pub fn make() -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo made && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "made\n");
        let this = Self { holder };
        ip(&format!("link add {UPLINK} type veth peer name eth0 netns {}", this.holder.id()));
        for (host, outside) in PRIVATE.into_iter().chain([PUBLIC]) {
            ip(&format!("address add {host}/30 dev {UPLINK}"));
            this.ip(&format!("address add {outside}/30 dev eth0"));
        }
        ip(&format!("address add fd12::1/64 nodad dev {UPLINK}"));
        this.ip("address add fd12::2/64 nodad dev eth0");
        this.ip("link set eth0 up");
        ip(&format!("link set {UPLINK} up"));
        ip(&format!("route add default via {}", PUBLIC.1));
        this
    }

    /// Where its namespace is.
    pub fn namespace(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.holder.id()).into()
    }

    /// Runs a command of `ip` in it.
    pub fn ip(&self, command: &str) {
        let command = command.to_owned();
        within(&self.namespace(), move || ip(&command));
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// Works on a thread in the network namespace at `path`: sockets that are made there stay there.
pub fn within<T: Send + 'static>(path: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = std::fs::File::open(path).unwrap();
    let thread = std::thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    });
    thread.join().unwrap()
}

/// Runs a command of `ip` in the caller's namespace.
pub fn ip(command: &str) {
    let status = Command::new("ip").args(command.split(' ')).status().unwrap();
    assert!(status.success(), "ip {command}: {status}");
}

/// Writes a setting of the caller's namespace.
pub fn write(path: &str, value: &str) {
    std::fs::write(path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// The interface with this address.
pub fn interface_with(address: Ipv4Addr) -> String {
    let output = Command::new("ip").args(["-o", "-4", "address"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.contains(&format!(" {address}/"))).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().to_owned()
}

/// Listens at this address for as long as the process lives and answers every request with the address that it comes from; the port.
pub fn answer(address: &str) -> u16 {
    let listener = TcpListener::bind(address).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let body =
                stream.peer_addr().map_or_else(|error| error.to_string(), |peer| peer.ip().to_canonical().to_string());
            let _ = stream.read(&mut [0; 4096]);
            let length = body.len();
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        }
    });
    port
}

/// Asks one who answers, from the caller's namespace.
pub fn ask(address: SocketAddr) -> Option<String> {
    let limit = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, limit).ok()?;
    stream.set_read_timeout(Some(limit)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text.rsplit_once("\r\n\r\n")?.1.to_owned())
}

/// A name server that knows [`NAME`] and [`LARGE`] and nothing else, by UDP and by TCP.
pub struct Resolver {
    address: String,
    threads: [JoinHandle<()>; 2],
}

impl Resolver {
    /// One at this address that says that the name has that one.
    pub fn start(address: &str, known: Ipv4Addr) -> Self {
        let (socket, listener) = (UdpSocket::bind(address).unwrap(), TcpListener::bind(address).unwrap());
        let datagrams = std::thread::spawn(move || {
            let mut packet = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut packet) {
                // A single byte is no question but the word to stop.
                let Some(reply) = reply(&packet[..length], known, false) else { return };
                let _ = socket.send_to(&reply, from);
            }
        });
        let streams = std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut length = [0; 2];
                let mut packet = [0; 1500];
                while stream.read_exact(&mut length).is_ok() {
                    let question = &mut packet[..u16::from_be_bytes(length).into()];
                    let Some(reply) = stream.read_exact(question).ok().and_then(|()| reply(question, known, true))
                    else {
                        return;
                    };
                    let length = u16::try_from(reply.len()).unwrap().to_be_bytes();
                    let _ = stream.write_all(&[&length[..], &reply].concat());
                }
            }
        });
        Self { address: address.to_owned(), threads: [datagrams, streams] }
    }

    /// Ends it; its ports are closed then.
    pub fn stop(self) {
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&[0], &self.address).unwrap();
        TcpStream::connect(&self.address).unwrap().write_all(&[0, 1, 0]).unwrap();
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

/// The answer to a question about an IPv4 address (RFC 1035); any other has no answer. By UDP, [`LARGE`] is cut off unless the question takes
/// large answers (RFC 6891).
fn reply(question: &[u8], known: Ipv4Addr, stream: bool) -> Option<Vec<u8>> {
    let header = question.get(..12)?;
    let mut end = 12;
    let mut labels = Vec::new();
    while question[end] != 0 {
        let next = end + 1 + usize::from(question[end]);
        labels.push(String::from_utf8_lossy(&question[end + 1..next]).to_ascii_lowercase());
        end = next;
    }
    let name = labels.join(".");
    let is_known = [NAME, LARGE].contains(&&*name);
    let count = match () {
        () if !is_known || question[end + 1..end + 3] != [0, 1] => 0,
        () if name == LARGE => LARGE_COUNT,
        () => 1,
    };
    let takes_large = header[11] == 1;
    let cut_off = count > 1 && !stream && !takes_large;
    let count = if cut_off { 0 } else { count };
    let mut reply = header[..2].to_vec();
    // A response, cut off or not, recursion wanted and available; no such name, or no error. One question, the answers, nothing more.
    reply.extend([0x81 | if cut_off { 2 } else { 0 }, if is_known { 0x80 } else { 0x83 }, 0, 1, 0, count, 0, 0, 0, 0]);
    reply.extend(&question[12..end + 5]);
    for last in 0..count {
        // The name of the question, IPv4, Internet, a minute, four bytes.
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        let [a, b, c, d] = known.octets();
        reply.extend([a, b, c, d.wrapping_add(last)]);
    }
    Some(reply)
}
