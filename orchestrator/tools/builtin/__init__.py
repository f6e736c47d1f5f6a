"""The tools that come along. They run on the host, as all tools do."""
