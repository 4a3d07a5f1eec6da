"""Flashing boards below their system: modes as sequences of actuators, images checked, tools supervised.

It knows neither MQTT nor the agent: settings come in as plain values, actuators and clocks as callables.
"""
