-- Makes the task that joins the results of an `each()` wait for its items, which are sent after this.
--
-- KEYS  1 META of the shard
-- ARGV  1 the joining task, 2 number of items
-- Reply {1, or 0 if no items may be sent: the task no longer waits, or its run was canceled; how many were sent before}
--
-- Bounded: a byte for each item, 5 ms for 500,000.
-- Safe to repeat: the task waits for its items once.

-- @include lib/transition.lua

local id, many = ARGV[1], tonumber(ARGV[2])
local sent, open = (call('GET', OWN .. 'map:' .. id) or ''):match('^%d+:(%d+):(%a)$')
if sent and (open ~= 'o' or sent ~= '0') then return { open == 'o' and 1 or 0, tonumber(sent) } end
local mapped = { id = id, many = many }
share(SELF).mapped = mapped
carry_out()
return { (mapped.done or sent) and 1 or 0, 0 }
