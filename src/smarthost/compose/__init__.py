"""What an application says in JSON, and its templates, become mail: nothing is fetched or stored here."""
