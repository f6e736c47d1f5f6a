"""The orchestrator service: one long-lived process that owns sandboxes, runs and their record. See docs/service.md."""
