-- A task or service that is started while its run is ending: what follows that run, in the transaction that ends it.
ALTER TABLE automations.executions ADD COLUMN restart jsonb;     -- {"started_by": ..., "definition": ...}; null: nothing follows
