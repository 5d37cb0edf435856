"""The core: state, step, epoch, evaluation; pure and jitted. Imports the types of data, devices, models and config."""
