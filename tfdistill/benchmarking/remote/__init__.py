"""Runs files on devices that this machine reaches by ssh or adb."""
