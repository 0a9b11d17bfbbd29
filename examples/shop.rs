//! The map of the shop: which services there are, where they listen, and which scenarios they can play.

use std::fmt;

use clap::ValueEnum;

/// The first of the shop's ports unless `--port-base` says otherwise.
pub const PORT_BASE_DEFAULT: u16 = 7100;

/// One process of the shop. The order is the order in which `up` starts them: load comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Service {
    /// The broker between checkout and notifications.
    Queue,
    /// Products: list, search, details.
    Catalog,
    /// Charges cards through the card network.
    Payment,
    /// Turns a basket into an order.
    Checkout,
    /// Sends order confirmations, taking orders from the queue.
    Notifications,
    /// The door of the shop: everything a customer asks for comes through here.
    Gateway,
    /// The customers. Sends no telemetry about itself, as a customer's browser would not.
    Traffic,
}

impl Service {
    pub const ALL: [Service; 7] = [
        Service::Queue,
        Service::Catalog,
        Service::Payment,
        Service::Checkout,
        Service::Notifications,
        Service::Gateway,
        Service::Traffic,
    ];

    /// The name on the command line and in `service.name`.
    pub const fn name(self) -> &'static str {
        match self {
            Service::Queue => "queue",
            Service::Catalog => "catalog",
            Service::Payment => "payment",
            Service::Checkout => "checkout",
            Service::Notifications => "notifications",
            Service::Gateway => "gateway",
            Service::Traffic => "traffic",
        }
    }

    const fn port_offset(self) -> u16 {
        match self {
            Service::Gateway => 0,
            Service::Catalog => 1,
            Service::Checkout => 2,
            Service::Payment => 3,
            Service::Queue => 4,
            Service::Notifications => 5,
            Service::Traffic => 6,
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Something that can go wrong in the shop, switched at run time.
pub struct Scenario {
    /// As typed and as in the address of its control endpoint.
    pub name: &'static str,
    /// One line for the list.
    pub summary: &'static str,
    /// The services that act on it; switching it switches it in each of them.
    pub players: &'static [Service],
}

pub const SLOW_PAYMENT: &str = "slow-payment";
pub const FAILING_PAYMENT: &str = "failing-payment";

/// Every scenario. A new one is a row here, and a `switches.on(NAME)` in the service that plays it.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: SLOW_PAYMENT,
        summary: "the bank `northbank` takes about a second to authorise a card",
        players: &[Service::Payment],
    },
    Scenario {
        name: FAILING_PAYMENT,
        summary: "the bank `atlas` refuses most requests as unavailable",
        players: &[Service::Payment],
    },
];

/// Where the services of one running shop listen; all on loopback.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    port_base: u16,
}

impl Addresses {
    /// # Errors
    /// When the ports would pass 65535.
    pub fn new(port_base: u16) -> anyhow::Result<Self> {
        let last_offset = Service::ALL.len() as u16 - 1;
        anyhow::ensure!(
            port_base > 0 && port_base <= u16::MAX - last_offset,
            "--port-base {port_base} leaves no room for {} ports; use 1 to {}",
            Service::ALL.len(),
            u16::MAX - last_offset
        );
        Ok(Self { port_base })
    }

    pub fn port_base(self) -> u16 {
        self.port_base
    }

    pub fn port(self, service: Service) -> u16 {
        self.port_base + service.port_offset()
    }

    /// The base address of a service, without a slash at the end.
    pub fn url(self, service: Service) -> String {
        format!("http://127.0.0.1:{}", self.port(service))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_service_has_its_own_port() {
        let addresses = Addresses::new(PORT_BASE_DEFAULT).unwrap();
        let ports: HashSet<u16> = Service::ALL.iter().map(|s| addresses.port(*s)).collect();
        assert_eq!(ports.len(), Service::ALL.len());
        assert!(ports.iter().all(|port| (7100..7107).contains(port)));
    }

    #[test]
    fn a_port_base_without_room_is_refused() {
        assert!(Addresses::new(65530).is_err());
        assert!(Addresses::new(65529).is_ok());
        assert!(Addresses::new(0).is_err());
    }
}
