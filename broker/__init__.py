"""The work broker of a farm: jobs, matching, leases and sleep."""
