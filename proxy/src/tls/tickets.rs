//! Session tickets that are good for the tenant they were made for.
//!
//! A name can become another tenant's while its old visitors hold tickets, and a resumed session shows no certificate: what
//! was agreed with one tenant's name would go on with the other's. So whose name it was is sealed into the ticket, and a
//! ticket of somebody else's is none: the visitor shakes hands in full.

use std::sync::Arc;

use rustls::server::ProducesTickets;

/// Seals tickets for one holder of a name.
#[derive(Debug)]
pub(super) struct BoundTickets {
    tickets: Arc<dyn ProducesTickets>,
    holder: [u8; 16],
}

impl BoundTickets {
    /// Tickets of `tickets` that only the same holder's name takes.
    pub(super) fn new(tickets: Arc<dyn ProducesTickets>, holder: u128) -> Self {
        Self { tickets, holder: holder.to_be_bytes() }
    }
}

impl ProducesTickets for BoundTickets {
    fn enabled(&self) -> bool {
        self.tickets.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.tickets.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.tickets.encrypt(&[&self.holder[..], plain].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let mut plain = self.tickets.decrypt(cipher)?;
        if !plain.starts_with(&self.holder) {
            return None;
        }
        plain.drain(..self.holder.len());
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_opens_for_its_holder_and_for_nobody_else() {
        let tickets = rustls::crypto::ring::Ticketer::new().unwrap();
        let of = |holder| BoundTickets::new(Arc::clone(&tickets), holder);
        let ticket = of(1).encrypt(b"a session").unwrap();
        assert_eq!(of(1).decrypt(&ticket).as_deref(), Some(&b"a session"[..]));
        assert_eq!(of(2).decrypt(&ticket), None);
        assert_eq!(of(1).decrypt(&tickets.encrypt(b"short").unwrap()), None);
        let mut other = ticket;
        *other.last_mut().unwrap() ^= 1;
        assert_eq!(of(1).decrypt(&other), None);
    }
}
