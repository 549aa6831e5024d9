from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("store", "0003_product_slug_not_null")]
    operations = [
        migrations.CreateModel(
            "Customer",
            [
                ("name", models.CharField(max_length=50, primary_key=True)),
                ("origin", models.IntegerField()),
                ("orders", models.IntegerField(default=0)),
            ],
        ),
        migrations.AddField(
            "order", "customer", models.ForeignKey("store.Customer", models.CASCADE, null=True)
        ),
    ]
