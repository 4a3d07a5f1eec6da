"""pdudaemon's place: its HTTP queries and its TCP line, and labgrid's `rest` shape, on top of verified power.

Clients written for pdudaemon (labgrid's PDUDaemonPort, LAVA's pduclient, curl in a script) work unchanged, and are told
when a switch failed. Off unless `[pdu_listener]` stands in the settings.
"""
