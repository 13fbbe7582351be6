-- Lets tasks wait for parents with which they were not sent, because these are many: some in each call, before the gate of
-- the run opens.
--
-- KEYS  1 META of the shard
-- ARGV  1 the gate, 2 number of this shard, then for each parent, packed: {task, index, parent, 1 if the task wants its
--       result, shard of the parent as in sent.lua, tenant of the parent, or '' for any}
-- Reply how many of these, from the first on, it has handled; the others are to come again
--
-- Bounded: it spends the budget of ends.lua.
-- Safe to repeat: an end counts once. A task of that id that came with another batch is left alone.

-- @include lib/transition.lua

local filled, of_this = {}, {}
for n = 3, #ARGV do
  local one = cmsgpack.unpack(ARGV[n])
  local id = one[1]
  if of_this[id] == nil then of_this[id] = call('GET', OWN .. 'fill:' .. id) == ARGV[1] end
  one[7] = tonumber(ARGV[2])
  filled[n - 2] = one
end
local mine = share(SELF)
mine.filled, mine.may_fill = filled, of_this
carry_out()
return filled.done or 0
