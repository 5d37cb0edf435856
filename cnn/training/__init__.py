"""The core: state, step, epoch, evaluation; pure and jitted. Imports data's types, devices, models and config."""
