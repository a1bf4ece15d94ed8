//! How a snapshot becomes the table.
