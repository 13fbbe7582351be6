-- Reads values under a key.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant, 2 key, then for each value: its run, or '' for that of its task; its task, or '' for the last of the run
-- Reply for each, unix µs at which it was stored, packed as a double, and the value; nothing if there is none
--
-- Reads only.

-- @include lib/intact.lua

local SOME = 100 -- entries of the index in a call
local place, key, found = #ARGV[1] .. ':' .. ARGV[1], ARGV[2], {}

-- Returns a value unless it has expired.
local function value_of(run, task)
  local packed = call('HGET', OWN .. place .. run, struct.pack('>Hc0', #task, task) .. key)
  local kept_until = packed and struct.unpack('>d', packed)
  return packed and (kept_until == 0 or kept_until > shard.ms) and packed:sub(9)
end

-- Returns the value that was stored last, of those that are still there.
local function last_of(run)
  local prefix, from = struct.pack('>Hc0', #key, key), 0
  while true do
    local entries = call('ZRANGE', OWN .. 'index:' .. place .. run, '(' .. prefix .. '\255', '[' .. prefix, 'BYLEX', 'REV',
      'LIMIT', from, SOME)
    for _, entry in ipairs(entries) do
      local kept_until, at = struct.unpack('>d', entry, #prefix + 9)
      local value = (kept_until == 0 or kept_until > shard.ms) and value_of(run, entry:sub(at))
      if value then return value end
    end
    if #entries < SOME then return false end
    from = from + SOME
  end
end

for i = 3, #ARGV, 2 do
  local run, task = ARGV[i], ARGV[i + 1]
  local value
  if task == '' then
    value = last_of(run)
  elseif run ~= '' then
    value = value_of(run, task)
  else
    local stored_in = call('GET', OWN .. 'run:' .. place .. task)
    value = stored_in and value_of(stored_in, task) or value_of(task, task)
  end
  found[#found + 1] = value or false
end
return found
