-- Deduplication keys that this script gives to tasks.

-- @include lib/base.lua

local holds, given = {}, {} -- key -> the task of this script that it stands for; task, its field of KEYED, ...

-- The task that a key stands for already; nil where it stands for `id` from now on, or there is none. `packed` is '' or
-- the window, 8 bytes, then the text. The names of tenants are never split off a key: their lengths stand before them.
local function take_key(id, name, packed)
  if packed == '' then return nil end
  local key = #name .. ':' .. name .. packed:sub(9)
  local holder = holds[key] or call('GET', KEY .. key)
  if holder then return holder end
  holds[key] = id
  given[#given + 1], given[#given + 2] = id, packed:sub(1, 8) .. key
end

-- Takes back what was given since there were `n` fields of it.
local function drop_keys(n)
  for i = #given, n + 1, -2 do
    holds[given[i]:sub(9)] = nil
    given[i], given[i - 1] = nil, nil
  end
end

local function write_keys()
  for key, id in pairs(holds) do call('SET', KEY .. key, id) end
  write_all('HSET', KEYED, given)
end
