//! Slots: the numbered resources that a running workspace has to itself on the node: a /30 of addresses, an interface name, a range of host
//! uids.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// Names of the interfaces of every home's workspaces on the host begin with this.
pub const INTERFACE_PREFIX: &str = "bt";
/// Ids of one workspace, as many as an image may use.
pub const ID_COUNT: u32 = 65_536;
/// First host uid of slot 0. High, so that no distribution's users or subordinate ids are there.
const FIRST_UID: u32 = 0x2000_0000;
/// Second octet of the first network for another home than the usual one.
const FIRST_OTHER: u8 = 160;
/// How many such networks there are.
const OTHERS: u8 = 48;

/// A number that one running workspace has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub u16);

impl Slot {
    /// Name of the host's end of its veth pair.
    #[must_use]
    pub fn interface(self, subnets: &Subnets) -> String {
        format!("{}{}", subnets.prefix(), self.0)
    }

    /// First uid (and gid) of its range on the host. Ranges end below 2^31.
    #[must_use]
    pub fn uid_base(self) -> u32 {
        FIRST_UID + u32::from(self.0 % Subnets::MOST) * ID_COUNT
    }
}

/// The addresses that workspaces have among themselves and the host; each slot a /30 of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnets {
    base: u32,
    /// Zero for the machine's usual home; otherwise it keeps the names of different homes apart (a second server, a test).
    tag: u16,
}

/// A network that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a network for workspaces: give an IPv4 network of 16 bits that nothing else here uses, for example 10.209.0.0/16"
)]
pub struct SubnetsError(String);

impl Default for Subnets {
    fn default() -> Self {
        Self { base: u32::from(Ipv4Addr::new(10, 209, 0, 0)), tag: 0 }
    }
}

impl TryFrom<String> for Subnets {
    type Error = SubnetsError;

    fn try_from(text: String) -> Result<Self, SubnetsError> {
        let address = text.strip_suffix("/16").and_then(|address| address.parse::<Ipv4Addr>().ok());
        match address {
            Some(address) if address.octets()[2..] == [0, 0] => Ok(Self { base: u32::from(address), tag: 0 }),
            _ => Err(SubnetsError(text)),
        }
    }
}

impl From<Subnets> for String {
    fn from(subnets: Subnets) -> Self {
        format!("{}/16", subnets.base())
    }
}

impl Subnets {
    /// Slots that fit.
    pub const MOST: u16 = 1 << 14;

    /// For this BERTH_HOME: another one than the usual gets names of its own and, unless they were configured, addresses of its own: those it
    /// has already (`own`), else the first that nobody on this machine uses (`used`).
    #[must_use]
    pub fn for_home(self, home: &std::path::Path, own: Option<Ipv4Addr>, used: &[Ipv4Addr]) -> Self {
        let tag = tag(home);
        if tag == 0 {
            return self;
        }
        if self.base != Self::default().base {
            return Self { base: self.base, tag };
        }
        let network = |address: &Ipv4Addr| u32::from(*address) & 0xffff_0000;
        if let Some(own) = own {
            return Self { base: network(&own), tag };
        }
        let [_, low] = tag.to_be_bytes();
        let candidate = |step: u8| u32::from(Ipv4Addr::new(10, FIRST_OTHER + (low % OTHERS + step) % OTHERS, 0, 0));
        let free = (0..OTHERS).map(candidate).find(|base| !used.iter().any(|address| network(address) == *base));
        Self { base: free.unwrap_or_else(|| candidate(0)), tag }
    }

    /// Names of this home's interfaces begin with this; no home's prefix is another's beginning.
    #[must_use]
    pub fn prefix(&self) -> String {
        if self.tag == 0 { format!("{INTERFACE_PREFIX}h") } else { format!("{INTERFACE_PREFIX}{:04x}x", self.tag) }
    }

    /// Name of this home's table in the packet filter.
    #[must_use]
    pub fn table(&self) -> String {
        if self.tag == 0 { "berth".to_owned() } else { format!("berth_{:04x}", self.tag) }
    }

    /// First address.
    #[must_use]
    pub fn base(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.base)
    }

    /// Always 16.
    #[must_use]
    pub const fn prefix_length(&self) -> u8 {
        16
    }

    /// The host's address towards this slot: the workspace's gateway.
    #[must_use]
    pub fn gateway(&self, slot: Slot) -> Ipv4Addr {
        Ipv4Addr::from(self.base + u32::from(slot.0 % Self::MOST) * 4 + 1)
    }

    /// The workspace's address.
    #[must_use]
    pub fn address(&self, slot: Slot) -> Ipv4Addr {
        Ipv4Addr::from(self.base + u32::from(slot.0 % Self::MOST) * 4 + 2)
    }
}

/// Tells homes on one machine apart; zero for the usual one.
#[must_use]
pub fn tag(home: &std::path::Path) -> u16 {
    use sha2::Digest as _;
    if home == std::path::Path::new("/var/lib/berth") {
        return 0;
    }
    let hash: [u8; 32] = sha2::Sha256::digest(home.as_os_str().as_encoded_bytes()).into();
    u16::from_be_bytes([hash[0], hash[1]]).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_do_not_overlap_and_stay_in_bounds() {
        let subnets = Subnets::default();
        let last = Slot(Subnets::MOST - 1);
        assert_eq!(subnets.gateway(Slot(0)), Ipv4Addr::new(10, 209, 0, 1));
        assert_eq!(subnets.address(Slot(1)), Ipv4Addr::new(10, 209, 0, 6));
        assert_eq!(subnets.address(last), Ipv4Addr::new(10, 209, 255, 254));
        assert!(last.uid_base().checked_add(ID_COUNT).is_some_and(|end| end <= 1 << 31));
        assert_eq!(Slot(1).uid_base() - Slot(0).uid_base(), ID_COUNT);
        let other = subnets.for_home(std::path::Path::new("/tmp/x"), None, &[]);
        for subnets in [subnets, other] {
            assert!(last.interface(&subnets).len() < 16);
        }
        assert_ne!(other.base(), subnets.base());
        assert_eq!(subnets.for_home(std::path::Path::new("/var/lib/berth"), None, &[]), subnets);
    }

    #[test]
    fn homes_on_one_machine_keep_out_of_each_others_addresses() {
        let home = std::path::Path::new("/tmp/x");
        let first = Subnets::default().for_home(home, None, &[]);
        let second = Subnets::default().for_home(home, None, &[first.gateway(Slot(3))]);
        assert_ne!(first.base(), second.base());
        // It keeps what it has, even if others came meanwhile.
        assert_eq!(Subnets::default().for_home(home, Some(second.gateway(Slot(7))), &[]), second);
        let configured = Subnets::try_from("10.1.0.0/16".to_owned()).unwrap();
        assert_eq!(configured.for_home(home, None, &[]).base(), configured.base());
    }

    #[test]
    fn a_network_is_checked() {
        assert!(Subnets::try_from("10.1.0.0/16".to_owned()).is_ok());
        for text in ["10.1.2.0/16", "10.1.0.0/24", "x", "::/16"] {
            assert!(Subnets::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
