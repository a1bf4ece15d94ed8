//! One order: what to do next, given what we have done and what the CA says. Pure.
//!
//! What the CA says of an order counts more than what we remember of it, so an order that was left at any step (a
//! crash, a lost lease, a CA that was away) goes on from where it really is:
//!
//! prepared → placed → published → validating → finalizing → the certificate

use schoolgate_store::acme::{AcmeOrder, OrderStep, Proof};

use crate::directory::{Authorization, CaError, Method01, Offer, OrderState, ProofState};

/// The kind of a failure that the CA does not explain.
pub const INVALID: &str = "orderInvalid";

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Let proxies or DNS show what the CA wants to see.
    Publish(Offer),
    /// Tell the CA to look, once everyone who may be asked can answer.
    Tell(Method01),
    /// The CA is at work: look again later.
    Look,
    /// Send the signing request.
    Finalize,
    /// Fetch the certificate.
    Download,
    /// It failed, and this is why.
    Fail(CaError),
}

/// Whether the authorization has to be read to know what is next.
pub const fn needs_authorization(state: OrderState) -> bool {
    matches!(state, OrderState::Pending | OrderState::Invalid)
}

/// What to do next. `authorization` is given where [`needs_authorization`] says so.
pub fn next(
    order: &AcmeOrder,
    method: Method01,
    (state, error): (OrderState, Option<CaError>),
    authorization: Option<&Authorization>,
) -> Next {
    match state {
        OrderState::Ready => Next::Finalize,
        OrderState::Processing => Next::Look,
        OrderState::Valid => Next::Download,
        OrderState::Invalid => Next::Fail(why_invalid(error, authorization)),
        OrderState::Pending => match authorization {
            None => Next::Look,
            Some(authorization) if !authorization.name.eq_ignore_ascii_case(&order.name) => {
                let message = format!("it wants {} proven, which was not ordered", authorization.name);
                Next::Fail(CaError::Protocol(message))
            }
            Some(authorization) => prove(order, method, authorization),
        },
    }
}

fn prove(order: &AcmeOrder, method: Method01, authorization: &Authorization) -> Next {
    match authorization.state {
        // Proven before (RFC 8555 section 7.4): the order will be ready.
        ProofState::Valid => return Next::Look,
        ProofState::Invalid => return Next::Fail(why_invalid(None, Some(authorization))),
        ProofState::Pending | ProofState::Processing => {}
    }
    let Some(offer) = authorization.offers.iter().find(|offer| offer.method == method) else {
        let message = format!("the CA does not offer {} for {}", name_of(method), order.name);
        return Next::Fail(CaError::Problem {
            kind: "unsupportedIdentifier".to_owned(),
            detail: message,
            retry_after: None,
        });
    };
    match offer.state {
        ProofState::Pending if is_published(order, method, offer) => Next::Tell(method),
        ProofState::Pending => Next::Publish(offer.clone()),
        ProofState::Processing | ProofState::Valid => Next::Look,
        ProofState::Invalid => Next::Fail(why_invalid(None, Some(authorization))),
    }
}

/// Whether what the CA wants to see is out. An authorization that was made anew has another token.
fn is_published(order: &AcmeOrder, method: Method01, offer: &Offer) -> bool {
    if matches!(order.step, OrderStep::Prepared | OrderStep::Placed) {
        return false;
    }
    match (&order.proof, method) {
        (Some(Proof::Http01), Method01::Http) => true,
        (Some(Proof::TlsAlpn01), Method01::TlsAlpn) => order.change.is_some(),
        (Some(Proof::Dns01 { value, .. }), Method01::Dns) => *value == offer.dns_value,
        _ => false,
    }
}

fn why_invalid(error: Option<CaError>, authorization: Option<&Authorization>) -> CaError {
    // The challenge says more than the order: what was looked up, where, and what was found.
    let of_challenge = authorization.and_then(|a| a.offers.iter().find_map(|offer| offer.error.clone()));
    of_challenge.or(error).unwrap_or_else(|| CaError::Problem {
        // Expired or deactivated while we were away: nothing was looked at.
        kind: INVALID.to_owned(),
        detail: "the order has become invalid, and the CA does not say why".to_owned(),
        retry_after: None,
    })
}

const fn name_of(method: Method01) -> &'static str {
    match method {
        Method01::Http => "http-01",
        Method01::TlsAlpn => "tls-alpn-01",
        Method01::Dns => "dns-01",
    }
}

#[cfg(test)]
mod tests {
    use schoolgate_config::seal::Keeper;
    use schoolgate_store::acme::{Charge, QueueClass};

    use super::*;

    fn order(step: OrderStep, proof: Option<Proof>) -> AcmeOrder {
        AcmeOrder {
            name: "erp.greenhill.example".into(),
            id: "1".into(),
            ca: "acme".parse().unwrap(),
            step,
            class: QueueClass::New,
            charge: Charge::New,
            key: Keeper::new(&[1; 32]).seal(AcmeOrder::KEY_PURPOSE, "1", b"key"),
            csr: Vec::new(),
            url: Some("https://ca.test/order/1".into()),
            profile: None,
            replaces: None,
            proof,
            change: Some(7),
            begun_at_ms: 0,
            next_ms: 0,
            stumbles: 0,
            note: None,
        }
    }

    fn offer(method: Method01, state: ProofState) -> Offer {
        Offer { method, state, digest: [1; 32], dns_value: "v".into(), error: None }
    }

    fn authorization(state: ProofState, offers: Vec<Offer>) -> Authorization {
        Authorization { name: "erp.greenhill.example".into(), state, offers }
    }

    const PENDING: (OrderState, Option<CaError>) = (OrderState::Pending, None);

    #[test]
    fn nobody_is_told_to_look_before_there_is_something_to_see() {
        let http = offer(Method01::Http, ProofState::Pending);
        let authorization =
            authorization(ProofState::Pending, vec![http.clone(), offer(Method01::Dns, ProofState::Pending)]);
        let next = |order: &AcmeOrder| next(order, Method01::Http, PENDING, Some(&authorization));
        for step in [OrderStep::Prepared, OrderStep::Placed] {
            assert_eq!(next(&order(step, Some(Proof::Http01))), Next::Publish(http.clone()), "{step:?}");
        }
        assert_eq!(next(&order(OrderStep::Published, None)), Next::Publish(http.clone()));
        assert_eq!(next(&order(OrderStep::Published, Some(Proof::Http01))), Next::Tell(Method01::Http));
    }

    #[test]
    fn a_new_token_is_published_anew() {
        let authorization = authorization(ProofState::Pending, vec![offer(Method01::Dns, ProofState::Pending)]);
        let published = |value: &str| {
            let proof = Proof::Dns01 { name: "_acme-challenge.x".into(), value: value.into() };
            next(&order(OrderStep::Validating, Some(proof)), Method01::Dns, PENDING, Some(&authorization))
        };
        assert_eq!(published("v"), Next::Tell(Method01::Dns));
        assert!(matches!(published("old"), Next::Publish(_)));
    }

    #[test]
    fn an_order_goes_on_from_where_the_ca_has_it_whatever_we_remember() {
        for step in [OrderStep::Prepared, OrderStep::Placed, OrderStep::Validating, OrderStep::Finalizing] {
            let order = order(step, None);
            let next = |state| next(&order, Method01::Http, (state, None), None);
            assert_eq!(next(OrderState::Ready), Next::Finalize);
            assert_eq!(next(OrderState::Processing), Next::Look);
            assert_eq!(next(OrderState::Valid), Next::Download);
        }
        let proven = authorization(ProofState::Valid, Vec::new());
        assert_eq!(next(&order(OrderStep::Placed, None), Method01::Http, PENDING, Some(&proven)), Next::Look);
        let looking = authorization(ProofState::Pending, vec![offer(Method01::Http, ProofState::Processing)]);
        assert_eq!(next(&order(OrderStep::Placed, None), Method01::Http, PENDING, Some(&looking)), Next::Look);
    }

    #[test]
    fn the_challenge_says_why_it_failed() {
        let dns = CaError::Problem { kind: "dns".into(), detail: "NXDOMAIN".into(), retry_after: None };
        let mut failed = offer(Method01::Http, ProofState::Invalid);
        failed.error = Some(dns.clone());
        let authorization = authorization(ProofState::Invalid, vec![failed]);
        let general = CaError::Problem { kind: "unauthorized".into(), detail: "it failed".into(), retry_after: None };
        let order = order(OrderStep::Validating, None);
        let state = (OrderState::Invalid, Some(general.clone()));
        assert_eq!(next(&order, Method01::Http, state.clone(), Some(&authorization)), Next::Fail(dns));
        assert_eq!(next(&order, Method01::Http, state, None), Next::Fail(general));
    }

    #[test]
    fn what_was_not_ordered_is_not_proven_and_what_is_not_offered_cannot_be() {
        let mut other = authorization(ProofState::Pending, vec![offer(Method01::Http, ProofState::Pending)]);
        other.name = "other.example".into();
        let order = order(OrderStep::Placed, None);
        assert!(matches!(next(&order, Method01::Http, PENDING, Some(&other)), Next::Fail(CaError::Protocol(_))));
        let dns_only = authorization(ProofState::Pending, vec![offer(Method01::Dns, ProofState::Pending)]);
        let Next::Fail(CaError::Problem { kind, detail, .. }) = next(&order, Method01::Http, PENDING, Some(&dns_only))
        else {
            panic!("it went on")
        };
        assert!(kind == "unsupportedIdentifier" && detail.contains("http-01"), "{detail}");
    }
}
