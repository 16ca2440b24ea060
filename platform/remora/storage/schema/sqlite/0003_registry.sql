-- What a host says about itself beyond who it is (group, weight, labels, release), as JSON: it is never searched for.
ALTER TABLE hosts ADD COLUMN about TEXT NOT NULL DEFAULT '{}';
