-- What a run was given, as its node says: a class may have changed since.
ALTER TABLE api.instances ADD COLUMN resources jsonb;
