"""TLS as a server speaks it: which certificate for which name, who a client's certificate says it is, and what is offered."""
