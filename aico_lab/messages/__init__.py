"""Messages on the way to the database: the rules for fields, ids, times, language and sentiment.

Sources make records of what they read by these rules, and so does the channel memory.
"""
