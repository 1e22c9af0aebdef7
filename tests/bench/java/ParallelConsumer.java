import static io.confluent.parallelconsumer.ParallelConsumerOptions.CommitMode.PERIODIC_CONSUMER_ASYNCHRONOUS;
import static io.confluent.parallelconsumer.ParallelConsumerOptions.ProcessingOrder.KEY;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.sun.management.OperatingSystemMXBean;
import io.confluent.parallelconsumer.ParallelConsumerOptions;
import io.confluent.parallelconsumer.ParallelStreamProcessor;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** The contender parallel-consumer, in KEY mode. The job is the argument, the last line on stdout is the run. */
public final class ParallelConsumer {
    private static final byte[] OURS = "\"admin_api\"".getBytes(StandardCharsets.UTF_8);
    private static final ObjectMapper JSON = new ObjectMapper();

    private static final OperatingSystemMXBean PROCESS = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();

    private static final AtomicLong began = new AtomicLong();
    private static final AtomicLong cpuBefore = new AtomicLong();
    private static final AtomicLong read = new AtomicLong();
    private static final AtomicLong handled = new AtomicLong();
    private static final CountDownLatch over = new CountDownLatch(1);

    public static void main(String[] arguments) throws Exception {
        JsonNode job = JSON.readTree(arguments[0]);
        long toRead = job.get("read").asLong();
        long toHandle = job.get("handled").asLong();
        long work = Math.round(job.get("work").asDouble() * 1000);
        long limit = Math.round(job.get("limit").asDouble() * 1000);

        ParallelStreamProcessor<byte[], byte[]> processor = ParallelStreamProcessor.createEosStreamProcessor(
                ParallelConsumerOptions.<byte[], byte[]>builder()
                        .consumer(new KafkaConsumer<>(settings(job)))
                        .ordering(KEY)
                        .maxConcurrency(job.get("options").get("threads").asInt())
                        .commitMode(PERIODIC_CONSUMER_ASYNCHRONOUS)
                        .build());
        processor.subscribe(List.of(job.get("topic").asText()));
        processor.poll(context -> {
            if (began.compareAndSet(0, System.nanoTime())) {
                cpuBefore.set(PROCESS.getProcessCpuTime());
            }
            byte[] value = context.getSingleConsumerRecord().value();
            if (lastIndexOf(value, OURS) >= 0) {
                handle(value, work);
                handled.incrementAndGet();
            }
            if (read.incrementAndGet() >= toRead && handled.get() >= toHandle) {
                over.countDown();
            }
        });
        while (!over.await(50, TimeUnit.MILLISECONDS)) {
            if (began.get() != 0 && System.nanoTime() - began.get() > limit * 1_000_000) {
                break;
            }
        }
        double seconds = (System.nanoTime() - began.get()) / 1e9;
        double cpu = (PROCESS.getProcessCpuTime() - cpuBefore.get()) / 1e9;
        System.out.printf(
                "{\"read\": %d, \"handled\": %d, \"seconds\": %.6f, \"memory\": %.1f, \"cpu\": %.6f}%n",
                read.get(), handled.get(), seconds, peakMemory(), cpu);
        System.out.flush();
        Runtime.getRuntime().halt(0);
    }

    private static void handle(byte[] value, long work) {
        try {
            JSON.readTree(value);
            if (work > 0) {
                Thread.sleep(work);
            }
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }

    private static Properties settings(JsonNode job) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", job.get("servers").asText());
        settings.put("group.id", job.get("group").asText());
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", "false");
        settings.put("key.deserializer", ByteArrayDeserializer.class.getName());
        settings.put("value.deserializer", ByteArrayDeserializer.class.getName());
        return settings;
    }

    /** From the end, as Usher does it: that is where Authgear writes the context. */
    private static int lastIndexOf(byte[] text, byte[] wanted) {
        outer:
        for (int start = text.length - wanted.length; start >= 0; start--) {
            for (int index = 0; index < wanted.length; index++) {
                if (text[start + index] != wanted[index]) {
                    continue outer;
                }
            }
            return start;
        }
        return -1;
    }

    private static double peakMemory() throws Exception {
        Path status = Path.of("/proc/self/status");
        if (!Files.exists(status)) {
            return 0;
        }
        for (String line : Files.readAllLines(status)) {
            if (line.startsWith("VmHWM")) {
                return Long.parseLong(line.replaceAll("\\D+", "")) / 1024.0;
            }
        }
        return 0;
    }
}
