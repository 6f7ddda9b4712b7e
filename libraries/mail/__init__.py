"""Write mails and send them by SMTP."""
