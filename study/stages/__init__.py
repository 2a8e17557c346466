"""One study: validate, learn, gate, search, confirm, attack, meta-evaluate. The only room that knows all others."""
