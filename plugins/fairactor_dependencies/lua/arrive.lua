-- Handles messages of another shard.
--
-- KEYS  1 META of the shard
-- ARGV  messages, as take.lua of that shard returned them
-- Reply how many of them, from the first on, it has handled; the others are to come again
--
-- Bounded: it spends the budget of ends.lua.
-- Safe to repeat: a message changes nothing the second time.

-- @include lib/transition.lua

depend_on(SELF) -- this shard may never have had a waiting task
local mine = share(SELF)
mine.messages = ARGV
carry_out()
return mine.handled or 0
