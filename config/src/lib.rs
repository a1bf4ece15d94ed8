//! What a gateway is told to do: model, identity, routing table, snapshot, settings.
