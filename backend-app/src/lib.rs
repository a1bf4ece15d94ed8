//! A small real multi-tenant school app.
