-- What the last check of a domain says to whoever orders its certificate; JSON.

ALTER TABLE domain_checks ADD COLUMN order_facts TEXT NOT NULL DEFAULT '{}';
