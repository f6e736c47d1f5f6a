"""The audit log: what sandboxes were asked to do and what they were refused, in a file that tells if it was changed.

``records`` and ``service_records`` say what is recorded, ``chain`` how one record holds the one before it, ``log`` is
the file, ``journal`` what a sandbox and the service write through.
"""

from orchestrator.audit.chain import Broken, Record, Report
from orchestrator.audit.journal import Journal, concern
from orchestrator.audit.log import AuditLog, entries_of, records_of, verify

__all__ = ["AuditLog", "Broken", "Journal", "Record", "Report", "concern", "entries_of", "records_of", "verify"]
