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

/// Other interfaces have every network that could be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no addresses for workspaces: other interfaces of this machine use {first}{}; name a free network as `subnets` in the node's settings",
    if *tried == 1 { String::new() } else { format!(" and the {} others to choose from", tried - 1) }
)]
pub struct SubnetsUsed {
    tried: usize,
    first: String,
}

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

    /// With the names of this BERTH_HOME: each but the usual one has its own.
    #[must_use]
    pub fn named_for(self, home: &std::path::Path) -> Self {
        Self { tag: tag(home), ..self }
    }

    /// For this BERTH_HOME: another one than the usual gets names of its own and, unless they were configured, addresses of its own: those it
    /// has already (`own`), else the first that nobody on this machine uses (`used`).
    ///
    /// # Errors
    /// When others here use all that it may choose from.
    pub fn for_home(
        self,
        home: &std::path::Path,
        own: Option<Ipv4Addr>,
        used: &[Ipv4Addr],
    ) -> Result<Self, SubnetsUsed> {
        let named = self.named_for(home);
        let network = |address: &Ipv4Addr| u32::from(*address) & 0xffff_0000;
        let may_choose = named.tag != 0 && self.base == Self::default().base;
        if may_choose && let Some(own) = own {
            return Ok(Self { base: network(&own), ..named });
        }
        let [_, low] = named.tag.to_be_bytes();
        let candidate = |step: u8| u32::from(Ipv4Addr::new(10, FIRST_OTHER + (low % OTHERS + step) % OTHERS, 0, 0));
        let candidates: Vec<u32> = if may_choose { (0..OTHERS).map(candidate).collect() } else { vec![self.base] };
        let free = candidates.iter().find(|base| !used.iter().any(|address| network(address) == **base));
        let used = || SubnetsUsed { tried: candidates.len(), first: named.with(candidates[0]).into() };
        Ok(named.with(*free.ok_or_else(used)?))
    }

    const fn with(self, base: u32) -> Self {
        Self { base, ..self }
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
        let other = subnets.for_home(std::path::Path::new("/tmp/x"), None, &[]).unwrap();
        for subnets in [subnets, other] {
            assert!(last.interface(&subnets).len() < 16);
        }
        assert_ne!(other.base(), subnets.base());
        assert_eq!(subnets.for_home(std::path::Path::new("/var/lib/berth"), None, &[]), Ok(subnets));
    }

    #[test]
    fn homes_on_one_machine_keep_out_of_each_others_addresses() {
        let home = std::path::Path::new("/tmp/x");
        let default = Subnets::default();
        let first = default.for_home(home, None, &[]).unwrap();
        let mut used = vec![first.gateway(Slot(3))];
        let second = default.for_home(home, None, &used).unwrap();
        assert_ne!(first.base(), second.base());
        // It keeps what it has, even if others came meanwhile.
        assert_eq!(default.for_home(home, Some(second.gateway(Slot(7))), &used), Ok(second));
        let configured = Subnets::try_from("10.1.0.0/16".to_owned()).unwrap();
        assert_eq!(configured.for_home(home, None, &[]).unwrap().base(), configured.base());
        // In the end there is none, and no other's is taken.
        while let Ok(next) = default.for_home(home, None, &used) {
            assert!(!used.contains(&next.gateway(Slot(3))));
            used.push(next.gateway(Slot(3)));
        }
        assert_eq!(used.len(), usize::from(OTHERS));
        let told = default.for_home(home, None, &used).unwrap_err().to_string();
        assert!(told.contains(&format!("use {} and the 47 others", String::from(first))), "{told}");
        let usual = default.for_home(std::path::Path::new("/var/lib/berth"), None, &[default.gateway(Slot(0))]);
        assert!(usual.unwrap_err().to_string().contains("use 10.209.0.0/16; name a free network"));
    }

    #[test]
    fn a_network_is_checked() {
        assert!(Subnets::try_from("10.1.0.0/16".to_owned()).is_ok());
        for text in ["10.1.2.0/16", "10.1.0.0/24", "x", "::/16"] {
            assert!(Subnets::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
