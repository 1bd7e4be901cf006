"""The restriction lists of smtpd: who may send what to whom."""
