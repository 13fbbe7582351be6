-- Gives the task that joins the results of an `each()` those of items that finished in earlier attempts at the run.
--
-- KEYS  1 META of the shard
-- ARGV  1 the joining task, 2 number of earlier joining tasks, then their ids, the latest first; the rest: numbers of
--       items, from 0
-- Reply for each item 1 if it has finished before, otherwise 0
--
-- Safe to repeat: an end counts once.

-- @include lib/transition.lua
-- @include own/outcome.lua

local id, many = ARGV[1], tonumber(ARGV[2])
local ids = {}
for i = 3 + many, #ARGV do
  for j = 3, 2 + many do ids[#ids + 1] = ARGV[j] .. '/' .. ARGV[i] end
end
local records, reply, adopted = read_records(ids), {}, { id = id }
for i = 3 + many, #ARGV do
  local n = i - 2 - many
  reply[n] = 0
  for j = (n - 1) * many + 1, n * many do
    if records[j] then
      if records[j]:sub(1, 1) == DONE then
        reply[n] = 1
        adopted[#adopted + 1] = { tonumber(ARGV[i]) + 1, ids[j], records[j] }
      end
      break
    end
  end
end
share(SELF).adopted = adopted
carry_out()
return reply
