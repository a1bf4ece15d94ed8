//! Certificates that were read together hold the intermediates that they have in common once.

use std::collections::HashSet;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::Object;
use crate::model::Der;

/// Lets certificates that nobody else holds yet share the intermediates they have in common. A table does the same with
/// what it is given, but has to copy a certificate for that; at a start with a hundred thousand this is done in place.
pub fn share_chains(objects: &mut [Object]) {
    let mut known: HashSet<Der, RandomState> = HashSet::default();
    for object in objects {
        let Object::Certificate(certificate) = object else { continue };
        let Some(certificate) = Arc::get_mut(certificate) else { continue };
        for der in certificate.chain.iter_mut().skip(1) {
            match known.get(der) {
                Some(shared) => *der = shared.clone(),
                None => {
                    known.insert(der.clone());
                }
            }
        }
    }
}
