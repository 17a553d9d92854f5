"""Django sends the signals of ``migrate`` only for apps that have this module."""
