-- Reads values under a key.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant, 2 key, then for each value: its run, or '' for that of its task; its task, or '' for the last of the run
-- Reply for each, unix µs at which it was stored, packed as a double, and the value; nothing if there is none; a list with
--       the entry of the index from which to go on, if it has looked at many that have expired. For the first ones
--       only, if these are large. A call that goes on gives the entry in place of the task, after a byte 255
--
-- Bounded: its caller asks for 100 values. It returns about 1 MB, and looks at 1,000 entries of the index.
-- Reads only.

-- @include lib/intact.lua

local SOME, LOOKED_AT, BYTES = 100, 1000, 1048576 -- entries of the index in a call; entries, and bytes of values, in all
local place, key, found = #ARGV[1] .. ':' .. ARGV[1], ARGV[2], {}
local looked, size = 0, 0

-- Returns a value unless it has expired.
local function value_of(run, task)
  local packed = call('HGET', OWN .. place .. run, struct.pack('>Hc0', #task, task) .. key)
  local kept_until = packed and struct.unpack('>d', packed)
  return packed and (kept_until == 0 or kept_until > shard.ms) and packed:sub(9)
end

-- Returns the value that was stored last, of those that are still there and before an entry, or a list with the entry from
-- which to go on.
local function last_of(run, before)
  local prefix = struct.pack('>Hc0', #key, key)
  local from = '(' .. (before == '' and prefix .. '\255' or before:sub(2))
  while true do
    local entries = call('ZRANGE', OWN .. 'index:' .. place .. run, from, '[' .. prefix, 'BYLEX', 'REV', 'LIMIT', 0, SOME)
    for _, entry in ipairs(entries) do
      local kept_until, at = struct.unpack('>d', entry, #prefix + 9)
      local value = (kept_until == 0 or kept_until > shard.ms) and value_of(run, entry:sub(at))
      if value then return value end
    end
    if #entries < SOME then return false end
    from, looked = '(' .. entries[SOME], looked + SOME
    if looked >= LOOKED_AT then return { entries[SOME] } end
  end
end

for i = 3, #ARGV, 2 do
  if size >= BYTES then break end
  local run, task = ARGV[i], ARGV[i + 1]
  local value
  if task == '' or task:byte() == 255 then
    value = last_of(run, task)
  elseif run ~= '' then
    value = value_of(run, task)
  else
    local stored_in = call('GET', OWN .. 'run:' .. place .. task)
    value = stored_in and value_of(stored_in, task) or value_of(task, task)
  end
  found[#found + 1] = value or false
  size = size + (type(value) == 'string' and #value or 0)
  if type(value) == 'table' then break end
end
return found
