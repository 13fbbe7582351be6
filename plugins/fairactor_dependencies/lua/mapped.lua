-- Tells how many items an `each()` has, and how many of them were sent. May stop it: then no more are accepted.
--
-- KEYS  1 META of the shard
-- ARGV  1 the joining task, 2 '1' to stop it
-- Reply {number of items, how many were sent}; both 0 if that is not known (yet)
--
-- Bounded: one field.
-- Safe to repeat: it stops once.

-- @include lib/intact.lua

local KEPT = 604800000 -- ms: as in ends.lua
local key = OWN .. 'map:' .. ARGV[1]
local many, sent = (call('GET', key) or '0:0:o'):match('^(%d+):(%d+):%a$')
if ARGV[2] == '1' then call('SET', key, (many or 0) .. ':' .. (sent or 0) .. ':c', 'PX', KEPT) end
return { tonumber(many or 0), tonumber(sent or 0) }
