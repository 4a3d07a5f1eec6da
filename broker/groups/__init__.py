"""Jobs for several boards at once, and where these meet: MultiNode."""
