-- Deduplication keys that this script gives to tasks.

-- @include lib/base.lua

local key_owners, keyed_fields = {}, {} -- key -> the task of this script that it stands for; task, its field of KEYED, ...

-- The task that a key stands for already; nil where it stands for `id` from now on, or there is none. `packed` is '' or
-- the window, 8 bytes, then the text. The names of tenants are never split off a key: their lengths stand before them.
local function take_key(id, name, packed)
  if packed == '' then return nil end
  local key = #name .. ':' .. name .. packed:sub(9)
  local holder = key_owners[key] or call('GET', KEY .. key)
  if holder then return holder end
  key_owners[key] = id
  keyed_fields[#keyed_fields + 1], keyed_fields[#keyed_fields + 2] = id, packed:sub(1, 8) .. key
end

-- Takes back what was given since there were `n` fields of it.
local function drop_keys(n)
  for i = #keyed_fields, n + 1, -2 do
    key_owners[keyed_fields[i]:sub(9)] = nil
    keyed_fields[i], keyed_fields[i - 1] = nil, nil
  end
end

local function write_keys()
  for key, id in pairs(key_owners) do call('SET', KEY .. key, id) end
  write_all('HSET', KEYED, keyed_fields)
end
